"""Passes over whole maps, [channels, positions] in memory, over grid (channels, blocks of positions).

A pointer to a bias may be None, for a map that has its bias already.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate, activation_derivative
from convmixer.kernels.device.planes import biased


@triton.jit
def block_offsets(positions, ELEMENTS: tl.constexpr):
    """Channel, offsets and mask of this program's elements."""
    channel = tl.program_id(0)
    position = tl.program_id(1) * ELEMENTS + tl.arange(0, ELEMENTS)
    return channel, channel.to(tl.int64) * positions + position, position < positions


@triton.jit
def bias_of(bias_ptr, channel):
    """The channel's bias, None where there is none."""
    bias = None
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel).to(tl.float32)
    return bias


@triton.jit
def store_block_sum(sums_ptr, row, values):
    """The sum of this program's values into sums[row, channel, block]."""
    offset = (row * tl.num_programs(0) + tl.program_id(0)) * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums_ptr + offset, tl.sum(values, axis=0))


@triton.jit
def store_mixed(
    x_ptr, h, x_scale_ptr, x_shift_ptr, x_bias_ptr, h_scale_ptr, h_shift_ptr, out_ptr,
    channel, offsets, mask, ACT: tl.constexpr,
):  # fmt: skip
    """out = x_scale * act(x + x_bias) + x_shift + h_scale * h + h_shift, `h` activated already."""
    x = activate(biased(tl.load(x_ptr + offsets, mask=mask, other=0.0), bias_of(x_bias_ptr, channel)), ACT)
    shift = tl.load(x_shift_ptr + channel) + tl.load(h_shift_ptr + channel)
    out = tl.load(x_scale_ptr + channel) * x + tl.load(h_scale_ptr + channel) * h + shift
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def mix_kernel(
    x_ptr, h_ptr, x_scale_ptr, x_shift_ptr, x_bias_ptr, h_scale_ptr, h_shift_ptr, out_ptr, positions,
    ACT: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """out = x_scale * act(x + x_bias) + x_shift + h_scale * act(h) + h_shift: a block's input plus its first half."""
    channel, offsets, mask = block_offsets(positions, ELEMENTS)
    h = activate(tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32), ACT)
    store_mixed(
        x_ptr, h, x_scale_ptr, x_shift_ptr, x_bias_ptr, h_scale_ptr, h_shift_ptr, out_ptr, channel, offsets, mask, ACT
    )


@triton.jit
def activation_sums_kernel(h_ptr, bias_ptr, sums_ptr, positions, ACT: tl.constexpr, ELEMENTS: tl.constexpr):
    """sums, [2, channels, blocks], of act(h + bias) and of its square: the statistics of the BatchNorm behind."""
    channel, offsets, mask = block_offsets(positions, ELEMENTS)
    h = biased(tl.load(h_ptr + offsets, mask=mask, other=0.0), bias_of(bias_ptr, channel))
    activated = tl.where(mask, activate(h, ACT), 0.0)
    store_block_sum(sums_ptr, 0, activated)
    store_block_sum(sums_ptr, 1, activated * activated)


@triton.jit
def activation_grad_kernel(
    grad_ptr, h_ptr, bias_ptr, sum_grad_ptr, square_grad_ptr, out_ptr, sums_ptr, positions,
    ACT: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """out = grad + act'(v) * (sum_grad + 2 * square_grad * act(v)), v = h + bias; and sums, [channels, blocks], of out.

    The gradient of h where h itself, the sum of act(v) and the sum of act(v)^2 have the gradients given.
    """
    channel, offsets, mask = block_offsets(positions, ELEMENTS)
    grad = tl.load(grad_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h = biased(tl.load(h_ptr + offsets, mask=mask, other=0.0), bias_of(bias_ptr, channel))
    statistics = tl.load(sum_grad_ptr + channel) + 2.0 * tl.load(square_grad_ptr + channel) * activate(h, ACT)
    out = tl.where(mask, grad + activation_derivative(h, ACT) * statistics, 0.0)
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)
    store_block_sum(sums_ptr, 0, out)


@triton.jit
def norm_sums_kernel(
    grad_ptr, h_ptr, x_ptr, x_scale_ptr, x_shift_ptr, x_bias_ptr, h_scale_ptr, h_shift_ptr, mixed_ptr, sums_ptr,
    positions, ACT: tl.constexpr, MIX: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """sums, [2, channels, blocks], of grad and of grad * act(h): what the gradient of the BatchNorm behind h needs.

    MIX: mixed gets what `mix_kernel` makes of x and h, in the same pass.
    """
    channel, offsets, mask = block_offsets(positions, ELEMENTS)
    grad = tl.load(grad_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    h = activate(tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32), ACT)
    store_block_sum(sums_ptr, 0, grad)
    store_block_sum(sums_ptr, 1, grad * h)
    if MIX:
        store_mixed(
            x_ptr, h, x_scale_ptr, x_shift_ptr, x_bias_ptr, h_scale_ptr, h_shift_ptr, mixed_ptr,
            channel, offsets, mask, ACT,
        )  # fmt: skip


@triton.jit
def pool_kernel(
    x_ptr, bias_ptr, out_ptr, images, positions,
    ACT: tl.constexpr, IMAGES: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """out[image, channel] = mean of act(x + bias) over a map's `positions`; grid (channels, blocks of images)."""
    channel = tl.program_id(0)
    image = tl.program_id(1) * IMAGES + tl.arange(0, IMAGES)
    bias = bias_of(bias_ptr, channel)
    start = (channel.to(tl.int64) * images + image) * positions
    total = tl.zeros((IMAGES, ELEMENTS), tl.float32)
    for first in range(0, positions, ELEMENTS):
        position = first + tl.arange(0, ELEMENTS)
        mask = (image[:, None] < images) & (position[None, :] < positions)
        x = biased(tl.load(x_ptr + start[:, None] + position[None, :], mask=mask, other=0.0), bias)
        total += tl.where(mask, activate(x, ACT), 0.0)
    mean = tl.sum(total, axis=1) / positions
    tl.store(out_ptr + image * tl.num_programs(0) + channel, mean, mask=image < images)


@triton.jit
def pool_grad_kernel(
    grad_ptr, x_ptr, bias_ptr, out_ptr, images, positions,
    ACT: tl.constexpr, IMAGES: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """out = grad[image, channel] / positions * act'(x + bias), the gradient of x; grid as `pool_kernel`'s."""
    channel = tl.program_id(0)
    image = tl.program_id(1) * IMAGES + tl.arange(0, IMAGES)
    bias = bias_of(bias_ptr, channel)
    start = (channel.to(tl.int64) * images + image) * positions
    grad = tl.load(grad_ptr + image * tl.num_programs(0) + channel, mask=image < images, other=0.0) / positions
    for first in range(0, positions, ELEMENTS):
        position = first + tl.arange(0, ELEMENTS)
        mask = (image[:, None] < images) & (position[None, :] < positions)
        offsets = start[:, None] + position[None, :]
        x = biased(tl.load(x_ptr + offsets, mask=mask, other=0.0), bias)
        out = grad[:, None] * activation_derivative(x, ACT)
        tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)
