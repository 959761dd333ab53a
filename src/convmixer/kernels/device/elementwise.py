"""Passes over whole maps, [channels, positions] in memory, over grid (channels, blocks of positions)."""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate, activation_slope


@triton.jit
def block_places(positions, ELEMENTS: tl.constexpr):
    """Channel, offsets and mask of this program's elements."""
    channel = tl.program_id(0)
    position = tl.program_id(1) * ELEMENTS + tl.arange(0, ELEMENTS)
    return channel, channel.to(tl.int64) * positions + position, position < positions


@triton.jit
def mix_kernel(
    x_ptr,
    h_ptr,
    x_scale_ptr,
    x_shift_ptr,
    h_scale_ptr,
    h_shift_ptr,
    out_ptr,
    positions,
    ACT: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """out = x_scale * act(x) + x_shift + h_scale * act(h) + h_shift: a block's input plus its first half's output."""
    channel, places, inside = block_places(positions, ELEMENTS)
    x = activate(tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32), ACT)
    h = activate(tl.load(h_ptr + places, mask=inside, other=0.0).to(tl.float32), ACT)
    shift = tl.load(x_shift_ptr + channel) + tl.load(h_shift_ptr + channel)
    out = tl.load(x_scale_ptr + channel) * x + tl.load(h_scale_ptr + channel) * h + shift
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def activation_grad_kernel(
    grad_ptr,
    h_ptr,
    sum_grad_ptr,
    square_grad_ptr,
    out_ptr,
    sums_ptr,
    positions,
    ACT: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """out = grad + act'(h) * (sum_grad + 2 * square_grad * act(h)), and sums, [channels, blocks], of out.

    The gradient of h where h itself, the sum of act(h) and the sum of act(h)^2 have the gradients given.
    """
    channel, places, inside = block_places(positions, ELEMENTS)
    grad = tl.load(grad_ptr + places, mask=inside, other=0.0).to(tl.float32)
    h = tl.load(h_ptr + places, mask=inside, other=0.0).to(tl.float32)
    statistics = tl.load(sum_grad_ptr + channel) + 2.0 * tl.load(square_grad_ptr + channel) * activate(h, ACT)
    out = tl.where(inside, grad + activation_slope(h, ACT) * statistics, 0.0)
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(sums_ptr + channel * tl.num_programs(1) + tl.program_id(1), tl.sum(out, axis=0))
