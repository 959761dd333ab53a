"""The depthwise half of a block backwards, with all its gradients, in one pass over its maps.

A program walks down the rows, as in `device.depthwise`, and keeps the last K rows of h's gradient: those that one row
of z meets in the filter, for z's gradient and for the filter's.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate, activation_slope
from convmixer.kernels.device.planes import (
    biased,
    load_row,
    load_rows,
    row_places,
    store_partial_sum,
    store_products,
    toeplitz_bands,
    zero_tiles,
)


@triton.jit
def gradient_of_h(grad, h, inside, a, b, d, ACT: tl.constexpr):
    """act'(h) (a grad + b act(h) + d) in fp32, 0 where not `inside`."""
    grad, h = grad.to(tl.float32), h.to(tl.float32)
    return tl.where(inside, activation_slope(h, ACT) * (a * grad + b * activate(h, ACT) + d), 0.0)


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
    grad_ptr, h_ptr, x_ptr, weight_ptr, slope_ptr, x_scale_ptr, x_shift_ptr, x_bias_ptr,
    x_grad_ptr, sums_ptr, products_ptr, images, height, width, image_stride, channel_stride,
    K: tl.constexpr, ACT: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
    PREFETCH: tl.constexpr,
):  # fmt: skip
    """From grad, the gradient of y = z + BatchNorm(act(h)), h = filter * z + bias, z = x_scale * act(v) + x_shift.

    v is x + x_bias, or x where x_bias_ptr is None. BatchNorm gives act(h) the gradient a grad + b act(h) + d with
    slope, [3, channels], holding a, b, d. Writes the gradient of x; sums, [3, channels, splits * tiles]: of h's
    gradient (the bias'), of z's (x_shift's) and of z's times act(v) (x_scale's); and products of the columns of h's
    gradient and of z, [channels, K, splits * tiles, WINDOW, COLUMNS] in fp32, whose diagonals are the rotated filter's
    gradient (`diagonal_sums_kernel`). All maps have the same strides. Grid (channels, splits, column tiles); a split
    takes each splits-th group of images.
    """
    channel, channels = tl.program_id(0), tl.num_programs(0)
    first = tl.program_id(2) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    window = first - (WINDOW - COLUMNS) // 2 + tl.arange(0, WINDOW)
    own = (window >= first) & (window < first + COLUMNS)
    dtype = grad_ptr.dtype.element_ty
    start = channel.to(tl.int64) * channel_stride
    grad_ptr += start
    h_ptr += start
    x_ptr += start
    x_grad_ptr += start
    bands = toeplitz_bands(weight_ptr, channel, dtype, K, True, COLUMNS, WINDOW)
    slope_ptr += channel
    a, b, d = tl.load(slope_ptr), tl.load(slope_ptr + channels), tl.load(slope_ptr + 2 * channels)
    x_scale, x_shift, x_bias = tl.load(x_scale_ptr + channel), tl.load(x_shift_ptr + channel), None
    if x_bias_ptr is not None:
        x_bias = tl.load(x_bias_ptr + channel)

    zero = tl.zeros((BLOCK_IMAGES,), tl.float32)
    bias_sum, shift_sum, scale_sum = zero, zero, zero
    products = zero_tiles(K, WINDOW, COLUMNS, tl.float32)
    stride = tl.num_programs(1) * BLOCK_IMAGES
    for group in range(tl.program_id(1) * BLOCK_IMAGES, images, stride):
        image = group + tl.arange(0, BLOCK_IMAGES)
        kept = zero_tiles(K, BLOCK_IMAGES, WINDOW, dtype)
        grads = load_rows(grad_ptr, 0, image, window, images, height, width, image_stride, PREFETCH)
        hs = load_rows(h_ptr, 0, image, window, images, height, width, image_stride, PREFETCH)
        xs = load_rows(x_ptr, -(K // 2), image, columns, images, height, width, image_stride, PREFETCH)
        for row in range(height + K // 2):
            done = row - K // 2
            ahead = row + PREFETCH
            grads = grads + (load_row(grad_ptr, ahead, image, window, images, height, width, image_stride),)  # noqa: RUF005
            hs = hs + (load_row(h_ptr, ahead, image, window, images, height, width, image_stride),)  # noqa: RUF005
            ahead = done + PREFETCH
            xs = xs + (load_row(x_ptr, ahead, image, columns, images, height, width, image_stride),)  # noqa: RUF005
            # z reaches y by itself too.
            residual = load_row(grad_ptr, done, image, columns, images, height, width, image_stride)

            _, inside = row_places(row, image, window, images, height, width, image_stride)
            h_grad = gradient_of_h(grads[0], hs[0], inside, a, b, d, ACT)
            bias_sum += tl.sum(tl.where(own[None, :], h_grad, 0.0), axis=1)
            kept = kept[1:] + (h_grad.to(dtype),)  # noqa: RUF005

            places, inside = row_places(done, image, columns, images, height, width, image_stride)
            x = biased(xs[0], x_bias)
            active = activate(x, ACT)
            # 0 in the border: BatchNorm comes before the padding.
            z = tl.where(inside, x_scale * active + x_shift, 0.0).to(dtype)
            z_grad = residual.to(tl.float32)
            for i in tl.static_range(K):
                z_grad = tl.dot(kept[i], bands[i], z_grad, input_precision=PRECISION)
            products = filter_products(kept, z, products, row, K, PRECISION)
            z_grad = tl.where(inside, z_grad, 0.0)
            shift_sum += tl.sum(z_grad, axis=1)
            scale_sum += tl.sum(z_grad * active, axis=1)
            x_grad = x_scale * activation_slope(x, ACT) * z_grad
            tl.store(x_grad_ptr + places, x_grad.to(dtype), mask=inside)
            grads, hs, xs = grads[1:], hs[1:], xs[1:]

    store_partial_sum(sums_ptr, 0, bias_sum)
    store_partial_sum(sums_ptr, 1, shift_sum)
    store_partial_sum(sums_ptr, 2, scale_sum)
    store_products(products_ptr, products, K, COLUMNS, WINDOW)
