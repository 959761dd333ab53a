"""The three products of a pointwise convolution on torch tensors, by Triton's kernels and by the library (cuBLAS).

Imported only where Triton is. Maps are contiguous [C, N, H, W], and a product is one of matrices: [O, I] with
[I, N * H * W]. None adds the bias: whoever reads the map does.
"""

from __future__ import annotations

import torch

from convmixer.kernels import tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.device.activations import IDENTITY, code
from convmixer.kernels.device.pointwise import pointwise_grad_kernel, pointwise_kernel
from convmixer.kernels.elementwise_launch import activation_sums, norm_sums
from convmixer.kernels.plan import Plan
from convmixer.kernels.tiling import PointwiseTiles


def pointwise(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    statistics: str | None = None,
    erf: str = "long",
    tiles: PointwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight x by Triton for x [I, N, H, W], weight [O, I, 1, 1]; with `statistics` sums [2, O] of act(out + bias)."""
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
            ACT=code(statistics, x.dtype, erf) if statistics else IDENTITY,
            **tiles.launch_options(),
        )
    return out, sums.sum(dim=-1) if statistics else sums


def pointwise_grad(
    grad: torch.Tensor,
    weight: torch.Tensor,
    x: torch.Tensor,
    h: torch.Tensor,
    of_x: Normalise,
    of_h: Normalise,
    *,
    mix: bool = True,
    erf: str = "long",
    tiles: PointwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """By Triton, from the gradient [O, N, H, W] of the product and its weight [O, I, 1, 1]: the input's gradient g.

    And the sums, fp32 [2, I], of g and g * act(h); and where `mix` is asked for the input, of_x(x) + of_h(h), again.
    """
    inputs, outputs, positions = grad.shape[0], x.shape[0], x[0].numel()
    tiles = tiles or tiling.pointwise_grad_tiles(outputs, inputs, positions, x.dtype)
    out, mixed = torch.empty_like(x), torch.empty_like(x) if mix else None
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
            of_x.bias,
            of_h.scale,
            of_h.shift,
            out,
            mixed,
            sums,
            outputs,
            inputs,
            positions,
            ACT=code(of_x.activation, x.dtype, erf),
            MIX=mix,
            **tiles.launch_options(),
        )
    return out, sums.sum(dim=-1), mixed


def product(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """weight x by the library, for weight [O, I] and x [I, N, H, W]."""
    return (weight.to(x.dtype) @ x.flatten(1)).view(-1, *x.shape[1:])


def weight_grad(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """grad x^T, fp32 [O, I], for maps grad [O, N, H, W] and x [I, N, H, W]: summed and given in fp32.

    A product of 16-bit matrices with an fp32 result (torch >= 2.8, on CUDA) keeps the parts of a sum that the library
    splits in fp32 too; a 16-bit result would round them.
    """
    a, b = grad.flatten(1), x.flatten(1).t()
    if a.device.type == "cuda" and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def forward(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: str, plan: Plan
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight x for weight [O, I, 1, 1], and sums, fp32 [2, O], of act(weight x + bias) and its square, by the plan."""
    if plan.products == "triton":
        tiles = plan.pointwise_tiles("pointwise")
        return pointwise(x, weight, bias=bias, statistics=activation, erf=plan.erf, tiles=tiles)
    out = product(weight.flatten(1), x)
    return out, activation_sums(out, bias, activation, erf=plan.erf)


def backward(
    grad: torch.Tensor,
    weight: torch.Tensor,
    x: torch.Tensor,
    h: torch.Tensor,
    mixed: torch.Tensor | None,
    of_x: Normalise,
    of_h: Normalise,
    plan: Plan,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """From the gradient of the product with the mixed map: that map's, its sums (`norm_sums`), and the weight's.

    mixed, None where it was not kept, is made again in the pass over x and h that sums.
    """
    if plan.products == "triton":
        tiles = plan.pointwise_tiles("pointwise_grad")
        found, sums, made = pointwise_grad(grad, weight, x, h, of_x, of_h, mix=mixed is None, erf=plan.erf, tiles=tiles)
    else:
        found = product(weight.flatten(1).t(), grad)
        sums, made = norm_sums(found, h, x, of_x, of_h, mix=mixed is None, erf=plan.erf)
    mixed = made if mixed is None else mixed
    assert mixed is not None
    return found, sums, weight_grad(grad, mixed).view_as(weight)
