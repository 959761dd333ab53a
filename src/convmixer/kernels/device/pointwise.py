"""The pointwise convolution: one matrix product over all positions of all images."""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate


@triton.jit
def pointwise_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    sums_ptr,
    outputs,
    inputs,
    positions,
    STATISTICS: tl.constexpr,
    ACT: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_POSITIONS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out[outputs, positions] = weight[outputs, inputs] x[inputs, positions] + bias[outputs].

    Grid (output tiles * position tiles,), output tiles first: those that read the same x run together, and it comes
    from the cache. STATISTICS: sums, [2, outputs, position tiles], gets the sums of act(out) and of its square.
    """
    output_tiles = tl.cdiv(outputs, BLOCK_OUTPUTS)
    position_tile = tl.program_id(0) // output_tiles
    output = (tl.program_id(0) % output_tiles) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    position = position_tile * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    channel = tl.arange(0, BLOCK_INPUTS)
    total = tl.zeros((BLOCK_OUTPUTS, BLOCK_POSITIONS), tl.float32)
    for start in range(0, inputs, BLOCK_INPUTS):
        there = start + channel < inputs
        weight = tl.load(
            weight_ptr + output[:, None] * inputs + (start + channel)[None, :],
            mask=(output[:, None] < outputs) & there[None, :],
            other=0.0,
        )
        x = tl.load(
            x_ptr + (start + channel).to(tl.int64)[:, None] * positions + position[None, :],
            mask=there[:, None] & (position[None, :] < positions),
            other=0.0,
        )
        total = tl.dot(weight, x, total, input_precision=PRECISION)

    inside = (output[:, None] < outputs) & (position[None, :] < positions)
    bias = tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    out = (total + bias[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + output.to(tl.int64)[:, None] * positions + position[None, :], out, mask=inside)
    if STATISTICS:
        activated = tl.where(inside, activate(out.to(tl.float32), ACT), 0.0)
        tiles = tl.cdiv(positions, BLOCK_POSITIONS)
        place = output * tiles + position_tile
        tl.store(sums_ptr + place, tl.sum(activated, axis=1), mask=output < outputs)
        squares = tl.sum(activated * activated, axis=1)
        tl.store(sums_ptr + outputs * tiles + place, squares, mask=output < outputs)
