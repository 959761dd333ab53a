"""The first half of a block backwards, in one pass over its maps; the walk is that of `device.depthwise`."""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate, activation_slope
from convmixer.kernels.device.planes import correlate_row, row_places, store_partial_sum, toeplitz_bands, zero_tiles


@triton.jit(do_not_specialize=["images", "height"])
def depthwise_block_grad_kernel(
    grad_ptr, h_ptr, x_ptr, weight_ptr, slope_ptr, x_scale_ptr, h_grad_ptr, x_grad_ptr, sums_ptr,
    images, height, width, image_stride, channel_stride,
    K: tl.constexpr, ACT: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From grad, the gradient of y = z + BatchNorm(act(h)), h = filter * z + bias, z = x_scale * act(x) + x_shift.

    BatchNorm gives act(h) the gradient a grad + b act(h) + d with slope, [3, channels], holding a, b, d. Writes the
    gradients of h and of x, and sums, [3, channels, groups * tiles]: of h's gradient (the bias'), of z's (x_shift's)
    and of z's times act(x) (x_scale's). All maps have the same strides. Grid (channels, image groups, column tiles).
    """
    channel = tl.program_id(0)
    channels = tl.num_programs(0)
    image = tl.program_id(1) * BLOCK_IMAGES + tl.arange(0, BLOCK_IMAGES)
    first = tl.program_id(2) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    window = first - (WINDOW - COLUMNS) // 2 + tl.arange(0, WINDOW)
    own = (window >= first) & (window < first + COLUMNS)
    dtype = grad_ptr.dtype.element_ty
    start = channel.to(tl.int64) * channel_stride
    bands = toeplitz_bands(weight_ptr, channel, dtype, K, True, COLUMNS, WINDOW)
    a = tl.load(slope_ptr + channel)
    b = tl.load(slope_ptr + channels + channel)
    d = tl.load(slope_ptr + 2 * channels + channel)
    x_scale = tl.load(x_scale_ptr + channel)

    bias_sum = tl.zeros((BLOCK_IMAGES,), tl.float32)
    shift_sum = tl.zeros((BLOCK_IMAGES,), tl.float32)
    scale_sum = tl.zeros((BLOCK_IMAGES,), tl.float32)
    rows = zero_tiles(K, BLOCK_IMAGES, COLUMNS)
    for base in range(0, height + K // 2, K):
        for step in tl.static_range(K):
            row = base + step
            places, inside = row_places(row, image, window, images, height, width, image_stride)
            grad = tl.load(grad_ptr + start + places, mask=inside, other=0.0).to(tl.float32)
            h = tl.load(h_ptr + start + places, mask=inside, other=0.0).to(tl.float32)
            h_grad = activation_slope(h, ACT) * (a * grad + b * activate(h, ACT) + d)
            h_grad = tl.where(inside, h_grad, 0.0)
            bias_sum += tl.sum(tl.where(own[None, :], h_grad, 0.0), axis=1)
            h_grad = h_grad.to(dtype)
            tl.store(h_grad_ptr + start + places, h_grad, mask=inside & own[None, :])
            rows = correlate_row(h_grad, bands, rows, K, PRECISION)

            done = row - K // 2
            places, inside = row_places(done, image, columns, images, height, width, image_stride)
            # z reaches y by itself too.
            z_grad = rows[0] + tl.load(grad_ptr + start + places, mask=inside, other=0.0).to(tl.float32)
            z_grad = tl.where(inside, z_grad, 0.0)
            rows = rows[1:] + zero_tiles(1, BLOCK_IMAGES, COLUMNS)
            x = tl.load(x_ptr + start + places, mask=inside, other=0.0).to(tl.float32)
            shift_sum += tl.sum(z_grad, axis=1)
            scale_sum += tl.sum(z_grad * activate(x, ACT), axis=1)
            x_grad = x_scale * activation_slope(x, ACT) * z_grad
            tl.store(x_grad_ptr + start + places, x_grad.to(dtype), mask=inside)

    store_partial_sum(sums_ptr, 0, bias_sum)
    store_partial_sum(sums_ptr, 1, shift_sum)
    store_partial_sum(sums_ptr, 2, scale_sum)
