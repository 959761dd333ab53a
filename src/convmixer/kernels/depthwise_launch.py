"""Launches of the depthwise kernels on torch tensors; see `device.depthwise` for what they compute.

Imported only where Triton is. Tensors x, [N, C, H, W], have planes in one piece (`limits.has_contiguous_planes`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from convmixer.kernels import tiling
from convmixer.kernels.device.activations import IDENTITY, code
from convmixer.kernels.device.depthwise import depthwise_kernel, depthwise_weight_grad_kernel, diagonal_sums_kernel
from convmixer.kernels.tiling import DepthwiseTiles


class Normalise(NamedTuple):
    """x -> scale * act(x + bias) + shift; all fp32 [C], act the name of an activation.

    bias None: the map has it already. A raw product's bias is added by whoever reads the map, so that any library's
    product will do; its gradient comes from the block that made the map.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    activation: str
    bias: torch.Tensor | None = None


def depthwise(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    flip: bool = False,
    prologue: Normalise | None = None,
    statistics: str | None = None,
    mix: Normalise | None = None,
    erf: str = "long",
    tiles: DepthwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """filter * x + bias in x's layout, and with `statistics` (an activation) the sums [2, C] of act(out), act(out)^2.

    `flip` rotates the filter by 180 degrees. `prologue` is applied to x before the zero padding. `mix` gives
    x + mix(filter * x + bias) instead, with the activation of both and no bias of its own. Sums are empty without
    `statistics`. `erf`: "long" or, for GELU of bf16 maps, "short" (`device.activations`).
    """
    images, channels, height, width = x.shape
    tiles = tiles or tiling.depthwise_tiles(images, width, x.dtype, weight.shape[-1], fused=prologue is not None)
    out = torch.empty_like(x)
    grid = (channels, -(-images // tiles.images), -(-width // tiles.columns))
    sums = x.new_empty((2, channels, grid[1] * grid[2]) if statistics else (0,), dtype=torch.float32)
    activations = {part.activation for part in (prologue, mix) if part is not None} | ({statistics} - {None})
    assert len(activations) <= 1, activations
    assert mix is None or mix.bias is None
    activation = next(iter(activations), None)
    with torch.cuda.device_of(x):
        depthwise_kernel[grid](
            x,
            weight.contiguous(),
            x if bias is None else bias,
            out,
            x if prologue is None else prologue.scale,
            x if prologue is None else prologue.shift,
            None if prologue is None else prologue.bias,
            x if mix is None else mix.scale,
            x if mix is None else mix.shift,
            sums,
            images,
            height,
            width,
            x.stride(0),
            x.stride(1),
            out.stride(0),
            out.stride(1),
            K=weight.shape[-1],
            FLIP=flip,
            HAS_BIAS=bias is not None,
            PROLOGUE=prologue is not None,
            EPILOGUE="statistics" if statistics else "mix" if mix is not None else "none",
            ACT=IDENTITY if activation is None else code(activation, x.dtype, erf),
            COLUMNS=tiles.columns,
            WINDOW=tiles.window,
            PREFETCH=tiles.prefetch,
            UNROLL=tiles.unroll,
            **tiles.launch_options(),
        )
    return out, sums.sum(dim=-1) if statistics else sums


def depthwise_weight_grad(
    x: torch.Tensor,
    grad: torch.Tensor,
    kernel_size: int,
    *,
    tiles: DepthwiseTiles | None = None,
) -> torch.Tensor:
    """Gradient of the filter, fp32 [C, 1, k, k], from the input x and the output's gradient."""
    images, channels, height, width = x.shape
    tiles = tiles or tiling.weight_grad_tiles(images, width, x.dtype)
    columns = -(-width // tiles.columns)
    splits = tiling.weight_grad_splits(channels * columns, -(-images // tiles.images))
    parts = splits * columns
    products = x.new_empty((channels, kernel_size, parts, tiles.window, tiles.columns), dtype=torch.float32)
    weight_grad = x.new_empty((channels, 1, kernel_size, kernel_size), dtype=torch.float32)
    shape = {"K": kernel_size, "COLUMNS": tiles.columns, "WINDOW": tiles.window}
    with torch.cuda.device_of(x):
        depthwise_weight_grad_kernel[(channels, splits, columns)](
            x,
            grad,
            products,
            images,
            height,
            width,
            x.stride(0),
            x.stride(1),
            grad.stride(0),
            grad.stride(1),
            **shape,
            **tiles.launch_options(),
        )
        diagonal_sums_kernel[(channels, kernel_size)](products, weight_grad, parts, FLIP=False, **shape)
    return weight_grad
