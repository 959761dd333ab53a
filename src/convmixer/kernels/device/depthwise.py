"""Triton kernels of the depthwise convolution: stride 1, same padding, k in 3, 5, 7, 9.

Walking down the rows of its maps, a program loads each input row once and adds it to the k output rows that it
reaches; the oldest of these is then complete. The weight gradient walks the same way and accumulates, for each row of
the filter, the products of input and gradient columns, whose diagonals are the filter's columns.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate
from convmixer.kernels.device.planes import (
    correlate_row,
    load_norm,
    load_row,
    load_rows,
    normalised,
    row_offsets,
    store_partial_sums,
    store_products,
    tap_of,
    tile_columns,
    toeplitz_bands,
    zero_tiles,
)


@triton.jit(do_not_specialize=["images", "height"])
def depthwise_kernel(
    x_ptr, weight_ptr, bias_ptr, out_ptr, scale_ptr, shift_ptr, x_bias_ptr, out_scale_ptr, out_shift_ptr, sums_ptr,
    images, height, width, x_image_stride, x_channel_stride, out_image_stride, out_channel_stride,
    K: tl.constexpr, FLIP: tl.constexpr, HAS_BIAS: tl.constexpr,
    PROLOGUE: tl.constexpr, EPILOGUE: tl.constexpr, ACT: tl.constexpr, PREFETCH: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = filter * x + bias over grid (channels, image groups, column tiles).

    PROLOGUE: x is scale * act(x + x_bias) + shift, or without x_bias where its pointer is None. EPILOGUE "statistics":
    sums, [2, channels, groups * tiles], gets the sums of act(out) and of its square. EPILOGUE "mix": out is
    x + out_scale * act(filter * x + bias) + out_shift.
    """
    channel = tl.program_id(0)
    image = tl.program_id(1) * BLOCK_IMAGES + tl.arange(0, BLOCK_IMAGES)
    columns, window = tile_columns(COLUMNS, WINDOW)
    tile = (image, window, images, height, width, x_image_stride)
    own_tile = (image, columns, images, height, width, x_image_stride)
    out_tile = (image, columns, images, height, width, out_image_stride)
    dtype = x_ptr.dtype.element_ty
    x_ptr += channel.to(tl.int64) * x_channel_stride
    out_ptr += channel.to(tl.int64) * out_channel_stride
    bands = toeplitz_bands(weight_ptr, channel, dtype, K, FLIP, COLUMNS, WINDOW)
    bias = tl.load(bias_ptr + channel).to(tl.float32) if HAS_BIAS else 0.0
    if PROLOGUE:
        of_x = load_norm(scale_ptr, shift_ptr, x_bias_ptr, channel)
    if EPILOGUE == "mix":
        out_scale, out_shift = tl.load(out_scale_ptr + channel), tl.load(out_shift_ptr + channel)

    total, squares = tl.zeros((BLOCK_IMAGES,), tl.float32), tl.zeros((BLOCK_IMAGES,), tl.float32)
    rows = zero_tiles(K, BLOCK_IMAGES, COLUMNS, tl.float32)
    ahead = load_rows(x_ptr, tile, PREFETCH)
    # Unrolled, the K accumulators take turns without being moved.
    unrolled: tl.constexpr = K if UNROLL else 1
    for base in range(0, height + K // 2, unrolled):
        for step in tl.static_range(unrolled):
            row, done = base + step, base + step - K // 2
            ahead = ahead + (load_row(x_ptr, row + PREFETCH, tile),)  # noqa: RUF005
            x, ahead = ahead[0], ahead[1:]
            offsets, mask = row_offsets(done, out_tile)
            if EPILOGUE == "mix":
                residual = load_row(x_ptr, done, own_tile).to(tl.float32)
            if PROLOGUE:
                x = normalised(x, row_offsets(row, tile)[1], of_x, ACT).to(dtype)
            rows = correlate_row(x, bands, rows, K, PRECISION)
            out = rows[0] + bias
            rows = rows[1:] + zero_tiles(1, BLOCK_IMAGES, COLUMNS, tl.float32)
            if EPILOGUE == "mix":
                if PROLOGUE:
                    residual = normalised(residual, mask, of_x, ACT)
                out = residual + out_scale * activate(out, ACT) + out_shift
            out = out.to(dtype)
            tl.store(out_ptr + offsets, out, mask=mask)
            if EPILOGUE == "statistics":
                activated = tl.where(mask, activate(out.to(tl.float32), ACT), 0.0)
                total += tl.sum(activated, axis=1)
                squares += tl.sum(activated * activated, axis=1)
    if EPILOGUE == "statistics":
        store_partial_sums(sums_ptr, (total, squares), 2)


@triton.jit(do_not_specialize=["images", "height"])
def depthwise_weight_grad_kernel(
    x_ptr, grad_ptr, products_ptr,
    images, height, width, x_image_stride, x_channel_stride, grad_image_stride, grad_channel_stride,
    K: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Products of input and gradient columns, [channels, K, splits * tiles, WINDOW, COLUMNS] in fp32.

    Over grid (channels, splits, tiles); a split takes each splits-th group of images. Product i belongs to row i of
    the filter, see `diagonal_sums_kernel`.
    """
    channel = tl.program_id(0)
    columns, window = tile_columns(COLUMNS, WINDOW)
    x_ptr += channel.to(tl.int64) * x_channel_stride
    grad_ptr += channel.to(tl.int64) * grad_channel_stride

    products = zero_tiles(K, WINDOW, COLUMNS, tl.float32)
    stride = tl.num_programs(1) * BLOCK_IMAGES
    for group in range(tl.program_id(1) * BLOCK_IMAGES, images, stride):
        image = group + tl.arange(0, BLOCK_IMAGES)
        for row in range(height):
            x = tl.trans(load_row(x_ptr, row, (image, window, images, height, width, x_image_stride)))
            updated = ()
            for i in tl.static_range(K):
                reached = row + K // 2 - i
                grad = load_row(grad_ptr, reached, (image, columns, images, height, width, grad_image_stride))
                product = products[i]
                # A branch for each, as in `device.block_grad`.
                if (reached >= 0) & (reached < height):
                    product = tl.dot(x, grad, product, input_precision=PRECISION)
                updated = updated + (product,)  # noqa: RUF005
            products = updated

    store_products(products_ptr, products, K, COLUMNS, WINDOW)


@triton.jit
def diagonal_sums_kernel(
    products_ptr, out_ptr, parts,
    K: tl.constexpr, FLIP: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Gradient of one row of a channel's filter, over grid (channels, K), from the sum of its products' parts.

    FLIP: the products are those of the filter rotated by 180 degrees.
    """
    row = tl.program_id(0) * K + tl.program_id(1)
    tile = tl.arange(0, WINDOW)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((WINDOW, COLUMNS), tl.float32)
    for part in range(parts):
        total += tl.load(products_ptr + (row.to(tl.int64) * parts + part) * (WINDOW * COLUMNS) + tile)
    tap = tap_of(K, COLUMNS, WINDOW)
    for j in tl.static_range(K):
        offset = tl.program_id(1) * K + j
        if FLIP:
            offset = K * K - 1 - offset
        tl.store(out_ptr + tl.program_id(0) * K * K + offset, tl.sum(tl.where(tap == j, total, 0.0)))
