"""Launches of a block's other kernels on torch tensors; see `device` for what they compute.

Imported only where Triton is. Maps are contiguous [C, N, H, W] here: a channel's maps lie together, its statistics are
sums over one piece of memory, and the pointwise convolution is one product of matrices.
"""

from __future__ import annotations

import torch

from convmixer.kernels import tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.device.activations import CODES, IDENTITY, code
from convmixer.kernels.device.block_grad import depthwise_block_grad_kernel
from convmixer.kernels.device.depthwise import diagonal_sums_kernel
from convmixer.kernels.device.elementwise import activation_grad_kernel, mix_kernel
from convmixer.kernels.device.pointwise import pointwise_grad_kernel, pointwise_kernel
from convmixer.kernels.tiling import DepthwiseTiles, PointwiseTiles


def pointwise(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    statistics: str | None = None,
    tiles: PointwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight x + bias for x [I, N, H, W], weight [O, I, 1, 1]; with `statistics` the sums [2, O] of act, act^2."""
    inputs, outputs, positions = x.shape[0], weight.shape[0], x[0].numel()
    tiles = tiles or tiling.pointwise_tiles(outputs, inputs, positions, x.dtype)
    out = x.new_empty((outputs, *x.shape[1:]))
    position_tiles = -(-positions // tiles.positions)
    sums = x.new_empty((2, outputs, position_tiles) if statistics else (0,), dtype=torch.float32)
    with torch.cuda.device_of(x):
        pointwise_kernel[(-(-outputs // tiles.outputs) * position_tiles,)](
            x,
            weight.to(x.dtype).contiguous(),
            bias,
            out,
            sums,
            outputs,
            inputs,
            positions,
            STATISTICS=statistics is not None,
            ACT=CODES[statistics] if statistics else IDENTITY,
            **tiles.launch_options(),
        )
    return out, sums.sum(dim=-1) if statistics else sums


def mix(x: torch.Tensor, h: torch.Tensor, of_x: Normalise, of_h: Normalise) -> torch.Tensor:
    """of_x(x) + of_h(h): the input of a block's second half."""
    out = torch.empty_like(x)
    grid, elements = _blocks(x)
    with torch.cuda.device_of(x):
        mix_kernel[grid](
            x,
            h,
            of_x.scale,
            of_x.shift,
            of_h.scale,
            of_h.shift,
            out,
            x[0].numel(),
            ACT=CODES[of_x.activation],
            ELEMENTS=elements,
        )
    return out


def activation_grad(
    grad: torch.Tensor, h: torch.Tensor, sums_grad: torch.Tensor, activation: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of h from its own and that of its sums [2, C] of act, act^2; and that gradient's sum, fp32 [C]."""
    out = torch.empty_like(h)
    grid, elements = _blocks(h)
    sums = h.new_empty(grid, dtype=torch.float32)
    with torch.cuda.device_of(h):
        activation_grad_kernel[grid](
            grad,
            h,
            sums_grad[0],
            sums_grad[1],
            out,
            sums,
            h[0].numel(),
            ACT=CODES[activation],
            ELEMENTS=elements,
        )
    return out, sums.sum(dim=-1)


def pointwise_grad(
    grad: torch.Tensor,
    weight: torch.Tensor,
    x: torch.Tensor,
    h: torch.Tensor,
    of_x: Normalise,
    of_h: Normalise,
    *,
    tiles: PointwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient g of the pointwise convolution's input, that input again, and the sums, fp32 [2, I], of g, g * act(h).

    From the gradient of its output, [O, N, H, W], and its weight, [O, I, 1, 1]; the input is of_x(x) + of_h(h).
    """
    inputs, outputs, positions = grad.shape[0], x.shape[0], x[0].numel()
    tiles = tiles or tiling.pointwise_grad_tiles(outputs, inputs, positions, x.dtype)
    out, mixed = torch.empty_like(x), torch.empty_like(x)
    position_tiles = -(-positions // tiles.positions)
    sums = x.new_empty((2, outputs, position_tiles), dtype=torch.float32)
    with torch.cuda.device_of(x):
        pointwise_grad_kernel[(-(-outputs // tiles.outputs) * position_tiles,)](
            grad,
            weight.reshape(inputs, outputs).t().to(x.dtype).contiguous(),
            x,
            h,
            of_x.scale,
            of_x.shift,
            of_h.scale,
            of_h.shift,
            out,
            mixed,
            sums,
            outputs,
            inputs,
            positions,
            ACT=CODES[of_x.activation],
            **tiles.launch_options(),
        )
    return out, mixed, sums.sum(dim=-1)


def depthwise_block_grad(
    grad: torch.Tensor,
    h: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    slope: torch.Tensor,
    of_x: Normalise,
    *,
    erf: str = "long",
    tiles: DepthwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x and, fp32 [C, 1, k, k], of the filter; and fp32 [3, C] those of the bias, of_x.shift, of_x.scale.

    From the gradient of the mixed map and slope, fp32 [3, C]; see `device.block_grad`.
    """
    channels, images, height, width = x.shape
    k = weight.shape[-1]
    tiles = tiles or tiling.block_grad_tiles(images, width, x.dtype, k)
    columns = -(-width // tiles.columns)
    grid = (channels, tiling.weight_grad_splits(channels * columns, -(-images // tiles.images)), columns)
    parts = grid[1] * grid[2]
    x_grad, weight_grad = torch.empty_like(x), x.new_empty((channels, 1, k, k), dtype=torch.float32)
    sums = x.new_empty((3, channels, parts), dtype=torch.float32)
    products = x.new_empty((channels, k, parts, tiles.window, tiles.columns), dtype=torch.float32)
    shape = {"K": k, "COLUMNS": tiles.columns, "WINDOW": tiles.window}
    with torch.cuda.device_of(x):
        depthwise_block_grad_kernel[grid](
            grad,
            h,
            x,
            weight.contiguous(),
            slope,
            of_x.scale,
            of_x.shift,
            of_x.bias,
            x_grad,
            sums,
            products,
            images,
            height,
            width,
            height * width,
            images * height * width,
            **shape,
            ACT=code(of_x.activation, x.dtype, erf),
            PREFETCH=tiles.prefetch,
            **tiles.launch_options(),
        )
        diagonal_sums_kernel[(channels, k)](products, weight_grad, parts, FLIP=True, **shape)
    return x_grad, weight_grad, sums.sum(dim=-1)


def _blocks(x: torch.Tensor) -> tuple[tuple[int, int], int]:
    elements = tiling.elements(x[0].numel())
    return (x.shape[0], -(-x[0].numel() // elements)), elements
