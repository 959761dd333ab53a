"""The depthwise half of a block backwards, with all its gradients, in one pass over its maps.

A program walks down the rows, as in `device.depthwise`, and keeps the last K rows of h's gradient: those that one row
of z meets in the filter, for z's gradient and for the filter's.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate, activation_derivative
from convmixer.kernels.device.planes import (
    biased,
    load_norm,
    load_row,
    row_offsets,
    store_partial_sums,
    store_products,
    tile_columns,
    toeplitz_bands,
    zero_tiles,
)


@triton.jit
def load_maps(grad_ptr, h_ptr, x_ptr, row, wide, narrow, K: tl.constexpr):
    """A row of grad and of h with what lies beside the output tile, and of x the row that they complete."""
    return load_row(grad_ptr, row, wide), load_row(h_ptr, row, wide), load_row(x_ptr, row - K // 2, narrow)


@triton.jit
def load_coefficients(coefficients_ptr):
    """a, b, d of this program's channel, from [3, channels]."""
    coefficients_ptr += tl.program_id(0)
    return (
        tl.load(coefficients_ptr),
        tl.load(coefficients_ptr + tl.num_programs(0)),
        tl.load(coefficients_ptr + 2 * tl.num_programs(0)),
    )


@triton.jit
def gradient_of_h(grad, h, mask, coefficients, ACT: tl.constexpr):
    """act'(h) (a grad + b act(h) + d) in fp32, 0 where `mask` is false."""
    a, b, d = coefficients
    grad, h = grad.to(tl.float32), h.to(tl.float32)
    return tl.where(mask, activation_derivative(h, ACT) * (a * grad + b * activate(h, ACT) + d), 0.0)


@triton.jit
def filter_products(kept, z, products, row, K: tl.constexpr, PRECISION: tl.constexpr):
    """The products with those of the last K rows of h's gradient and a row of z added; `row` is the last of them."""
    updated = ()
    for i in tl.static_range(K):
        product = products[i]
        # Rows before the map's first are 0. And Triton spreads products that it sees side by side over the warps along
        # one side, of which two would do the same here: so each has a branch of its own.
        if row >= K - 1 - i:
            product = tl.dot(tl.trans(kept[i]), z, product, input_precision=PRECISION)
        updated = updated + (product,)  # noqa: RUF005
    return updated


@triton.jit(do_not_specialize=["images", "height"])
def depthwise_block_grad_kernel(
    grad_ptr, h_ptr, x_ptr, weight_ptr, coefficients_ptr, x_scale_ptr, x_shift_ptr, x_bias_ptr,
    x_grad_ptr, sums_ptr, products_ptr, images, height, width, image_stride, channel_stride,
    K: tl.constexpr, ACT: tl.constexpr, PREFETCH: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From grad, the gradient of y = z + BatchNorm(act(h)), h = filter * z + bias, z = x_scale * act(v) + x_shift.

    v is x + x_bias, or x where x_bias_ptr is None. BatchNorm gives act(h) the gradient a grad + b act(h) + d with
    coefficients, [3, channels], holding a, b, d. Writes the gradient of x; sums, [3, channels, splits * tiles]: of h's
    gradient (the bias'), of z's (x_shift's) and of z's times act(v) (x_scale's); and products of the columns of h's
    gradient and of z, [channels, K, splits * tiles, WINDOW, COLUMNS] in fp32, whose diagonals are the rotated filter's
    gradient (`diagonal_sums_kernel`). All maps have the same strides. Grid (channels, splits, column tiles); a split
    takes each splits-th group of images.
    """
    channel = tl.program_id(0)
    columns, window = tile_columns(COLUMNS, WINDOW)
    own = (window >= tl.program_id(2) * COLUMNS) & (window < (tl.program_id(2) + 1) * COLUMNS)
    dtype = grad_ptr.dtype.element_ty
    start = channel.to(tl.int64) * channel_stride
    grad_ptr, h_ptr, x_ptr = grad_ptr + start, h_ptr + start, x_ptr + start
    bands = toeplitz_bands(weight_ptr, channel, dtype, K, True, COLUMNS, WINDOW)
    coefficients = load_coefficients(coefficients_ptr)
    x_scale, x_shift, x_bias = load_norm(x_scale_ptr, x_shift_ptr, x_bias_ptr, channel)

    zero = tl.zeros((BLOCK_IMAGES,), tl.float32)
    bias_sum, shift_sum, scale_sum = zero, zero, zero
    products = zero_tiles(K, WINDOW, COLUMNS, tl.float32)
    for group in range(tl.program_id(1) * BLOCK_IMAGES, images, tl.num_programs(1) * BLOCK_IMAGES):
        image = group + tl.arange(0, BLOCK_IMAGES)
        wide = (image, window, images, height, width, image_stride)
        narrow = (image, columns, images, height, width, image_stride)
        kept = zero_tiles(K, BLOCK_IMAGES, WINDOW, dtype)
        ahead = ()
        for row in tl.static_range(PREFETCH):
            ahead = ahead + (load_maps(grad_ptr, h_ptr, x_ptr, row, wide, narrow, K),)  # noqa: RUF005
        for row in range(height + K // 2):
            ahead = ahead + (load_maps(grad_ptr, h_ptr, x_ptr, row + PREFETCH, wide, narrow, K),)  # noqa: RUF005
            grad, h, x = ahead[0]
            ahead = ahead[1:]
            z_grad = load_row(grad_ptr, row - K // 2, narrow).to(tl.float32)  # z reaches y by itself too
            h_grad = gradient_of_h(grad, h, row_offsets(row, wide)[1], coefficients, ACT)
            bias_sum += tl.sum(tl.where(own[None, :], h_grad, 0.0), axis=1)
            kept = kept[1:] + (h_grad.to(dtype),)  # noqa: RUF005

            offsets, mask = row_offsets(row - K // 2, narrow)
            x = biased(x, x_bias)
            active = activate(x, ACT)
            z = tl.where(mask, x_scale * active + x_shift, 0.0).to(dtype)  # BatchNorm comes before the padding
            for i in tl.static_range(K):
                z_grad = tl.dot(kept[i], bands[i], z_grad, input_precision=PRECISION)
            products = filter_products(kept, z, products, row, K, PRECISION)
            z_grad = tl.where(mask, z_grad, 0.0)
            shift_sum += tl.sum(z_grad, axis=1)
            scale_sum += tl.sum(z_grad * active, axis=1)
            x_grad = (x_scale * activation_derivative(x, ACT) * z_grad).to(dtype)
            tl.store(x_grad_ptr + start + offsets, x_grad, mask=mask)

    store_partial_sums(sums_ptr, (bias_sum, shift_sum, scale_sum), 3)
    store_products(products_ptr, products, K, COLUMNS, WINDOW)
