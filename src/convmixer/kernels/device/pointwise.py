"""The pointwise convolution and its data gradient: one matrix product over all positions of all images each."""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate


@triton.jit
def product_tile(
    x_ptr, weight_ptr, output, position, outputs, inputs, positions,
    BLOCK_OUTPUTS: tl.constexpr, BLOCK_POSITIONS: tl.constexpr, BLOCK_INPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """weight x at these outputs and positions, in fp32; 0 beyond the last of either."""
    channel = tl.arange(0, BLOCK_INPUTS)
    total = tl.zeros((BLOCK_OUTPUTS, BLOCK_POSITIONS), tl.float32)
    for start in range(0, inputs, BLOCK_INPUTS):
        input_mask = start + channel < inputs
        weight = tl.load(
            weight_ptr + output[:, None] * inputs + (start + channel)[None, :],
            mask=(output[:, None] < outputs) & input_mask[None, :],
            other=0.0,
        )
        x = tl.load(
            x_ptr + (start + channel).to(tl.int64)[:, None] * positions + position[None, :],
            mask=input_mask[:, None] & (position[None, :] < positions),
            other=0.0,
        )
        total = tl.dot(weight, x, total, input_precision=PRECISION)
    return total


@triton.jit
def store_row_sums(sums_ptr, row, values, output, outputs, tile, tiles):
    """The sum of each row of `values` into sums[row, output, tile]."""
    tl.store(sums_ptr + (row * outputs + output) * tiles + tile, tl.sum(values, axis=1), mask=output < outputs)


@triton.jit
def pointwise_kernel(
    x_ptr, weight_ptr, bias_ptr, out_ptr, sums_ptr, outputs, inputs, positions,
    STATISTICS: tl.constexpr, ACT: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr, BLOCK_POSITIONS: tl.constexpr, BLOCK_INPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[outputs, positions] = weight[outputs, inputs] x[inputs, positions], without the bias.

    Grid (output tiles * position tiles,), output tiles first: those that read the same x run together, and it comes
    from the cache. STATISTICS: sums, [2, outputs, position tiles], gets the sums of act(out + bias) and of its square,
    of out as it is stored.
    """
    output_tiles = tl.cdiv(outputs, BLOCK_OUTPUTS)
    position_tile = tl.program_id(0) // output_tiles
    output = (tl.program_id(0) % output_tiles) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    position = position_tile * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    total = product_tile(
        x_ptr, weight_ptr, output, position, outputs, inputs, positions,
        BLOCK_OUTPUTS, BLOCK_POSITIONS, BLOCK_INPUTS, PRECISION,
    )  # fmt: skip
    mask = (output[:, None] < outputs) & (position[None, :] < positions)
    out = total.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + output.to(tl.int64)[:, None] * positions + position[None, :], out, mask=mask)
    if STATISTICS:
        bias = tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
        activated = tl.where(mask, activate(out.to(tl.float32) + bias[:, None], ACT), 0.0)
        tiles = tl.cdiv(positions, BLOCK_POSITIONS)
        store_row_sums(sums_ptr, 0, activated, output, outputs, position_tile, tiles)
        store_row_sums(sums_ptr, 1, activated * activated, output, outputs, position_tile, tiles)


@triton.jit
def pointwise_grad_kernel(
    grad_ptr, weight_ptr, x_ptr, h_ptr, x_scale_ptr, x_shift_ptr, x_bias_ptr, h_scale_ptr, h_shift_ptr,
    out_ptr, mixed_ptr, sums_ptr, outputs, inputs, positions,
    ACT: tl.constexpr, MIX: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr, BLOCK_POSITIONS: tl.constexpr, BLOCK_INPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[outputs, positions] = weight[outputs, inputs] grad[inputs, positions], and what BatchNorm's gradient needs.

    weight is the convolution's transposed, so `outputs` are its input channels. sums, [2, outputs, position tiles],
    gets the sums of out, as it is stored, and of out * act(h). MIX: mixed gets the convolution's input, made again:
    x_scale * act(x + x_bias) + x_shift + h_scale * act(h) + h_shift. Grid as `pointwise_kernel`'s.
    """
    output_tiles = tl.cdiv(outputs, BLOCK_OUTPUTS)
    position_tile = tl.program_id(0) // output_tiles
    output = (tl.program_id(0) % output_tiles) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    position = position_tile * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    total = product_tile(
        grad_ptr, weight_ptr, output, position, outputs, inputs, positions,
        BLOCK_OUTPUTS, BLOCK_POSITIONS, BLOCK_INPUTS, PRECISION,
    )  # fmt: skip
    output_mask = output < outputs
    mask = output_mask[:, None] & (position[None, :] < positions)
    offsets = output.to(tl.int64)[:, None] * positions + position[None, :]
    out = total.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, out, mask=mask)

    h = activate(tl.load(h_ptr + offsets, mask=mask, other=0.0).to(tl.float32), ACT)
    out = out.to(tl.float32)
    tiles = tl.cdiv(positions, BLOCK_POSITIONS)
    store_row_sums(sums_ptr, 0, out, output, outputs, position_tile, tiles)
    store_row_sums(sums_ptr, 1, out * h, output, outputs, position_tile, tiles)
    if MIX:
        x_scale = tl.load(x_scale_ptr + output, mask=output_mask, other=0.0)
        h_scale = tl.load(h_scale_ptr + output, mask=output_mask, other=0.0)
        shift = tl.load(x_shift_ptr + output, mask=output_mask, other=0.0)
        shift += tl.load(h_shift_ptr + output, mask=output_mask, other=0.0)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        if x_bias_ptr is not None:
            x += tl.load(x_bias_ptr + output, mask=output_mask, other=0.0).to(tl.float32)[:, None]
        mixed = x_scale[:, None] * activate(x, ACT) + h_scale[:, None] * h + shift[:, None]
        tl.store(mixed_ptr + offsets, mixed.to(mixed_ptr.dtype.element_ty), mask=mask)
