"""Launches of the passes over whole maps on torch tensors; see `device.elementwise` for what they compute.

Imported only where Triton is. Maps are contiguous [C, N, H, W]. `erf`: "long" or, for GELU of bf16 maps, "short".
"""

from __future__ import annotations

import torch

from convmixer.kernels import tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.device import elementwise as kernels
from convmixer.kernels.device.activations import code


def mix(x: torch.Tensor, h: torch.Tensor, of_x: Normalise, of_h: Normalise, *, erf: str = "long") -> torch.Tensor:
    """of_x(x) + of_h(h): the input of a block's second half."""
    assert of_h.bias is None
    out = torch.empty_like(x)
    grid, elements = _blocks(x)
    with torch.cuda.device_of(x):
        kernels.mix_kernel[grid](
            x,
            h,
            of_x.scale,
            of_x.shift,
            of_x.bias,
            of_h.scale,
            of_h.shift,
            out,
            x[0].numel(),
            ACT=code(of_x.activation, x.dtype, erf),
            ELEMENTS=elements,
        )
    return out


def activation_sums(h: torch.Tensor, bias: torch.Tensor | None, activation: str, *, erf: str = "long") -> torch.Tensor:
    """fp32 [2, C]: the sums of act(h + bias) and of its square."""
    grid, elements = _blocks(h)
    sums = h.new_empty((2, *grid), dtype=torch.float32)
    with torch.cuda.device_of(h):
        kernels.activation_sums_kernel[grid](
            h, bias, sums, h[0].numel(), ACT=code(activation, h.dtype, erf), ELEMENTS=elements
        )
    return sums.sum(dim=-1)


def activation_grad(
    grad: torch.Tensor,
    h: torch.Tensor,
    bias: torch.Tensor | None,
    sums_grad: torch.Tensor,
    activation: str,
    *,
    erf: str = "long",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of h from its own and that of its sums [2, C] (`activation_sums`); and that gradient's sum, fp32 [C].

    The sum is the gradient of the bias, which enters h's readers and its sums as h does.
    """
    out = torch.empty_like(h)
    grid, elements = _blocks(h)
    sums = h.new_empty(grid, dtype=torch.float32)
    with torch.cuda.device_of(h):
        kernels.activation_grad_kernel[grid](
            grad,
            h,
            bias,
            sums_grad[0],
            sums_grad[1],
            out,
            sums,
            h[0].numel(),
            ACT=code(activation, h.dtype, erf),
            ELEMENTS=elements,
        )
    return out, sums.sum(dim=-1)


def norm_sums(
    grad: torch.Tensor,
    h: torch.Tensor,
    x: torch.Tensor,
    of_x: Normalise,
    of_h: Normalise,
    *,
    mix: bool,
    erf: str = "long",
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The sums, fp32 [2, C], of grad and grad * act(h); and where `mix` is asked for, of_x(x) + of_h(h)."""
    assert of_h.bias is None
    mixed = torch.empty_like(x) if mix else None
    grid, elements = _blocks(h)
    sums = h.new_empty((2, *grid), dtype=torch.float32)
    with torch.cuda.device_of(h):
        kernels.norm_sums_kernel[grid](
            grad,
            h,
            x,
            of_x.scale,
            of_x.shift,
            of_x.bias,
            of_h.scale,
            of_h.shift,
            mixed,
            sums,
            h[0].numel(),
            ACT=code(of_h.activation, h.dtype, erf),
            MIX=mix,
            ELEMENTS=elements,
        )
    return sums.sum(dim=-1), mixed


def pool(x: torch.Tensor, bias: torch.Tensor | None, activation: str, *, erf: str = "long") -> torch.Tensor:
    """The mean of act(x + bias) over each map, fp32 [N, C]."""
    channels, images, height, width = x.shape
    out = x.new_empty((images, channels), dtype=torch.float32)
    tile = tiling.pool_tile(images, height * width)
    with torch.cuda.device_of(x):
        kernels.pool_kernel[(channels, -(-images // tile[0]))](
            x, bias, out, images, height * width, ACT=code(activation, x.dtype, erf), IMAGES=tile[0], ELEMENTS=tile[1]
        )
    return out


def pool_grad(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activation: str, *, erf: str = "long"
) -> torch.Tensor:
    """Gradient of x from that of `pool`'s means, fp32 [N, C] and contiguous."""
    channels, images, height, width = x.shape
    out = torch.empty_like(x)
    tile = tiling.pool_tile(images, height * width)
    with torch.cuda.device_of(x):
        kernels.pool_grad_kernel[(channels, -(-images // tile[0]))](
            grad,
            x,
            bias,
            out,
            images,
            height * width,
            ACT=code(activation, x.dtype, erf),
            IMAGES=tile[0],
            ELEMENTS=tile[1],
        )
    return out


def _blocks(x: torch.Tensor) -> tuple[tuple[int, int], int]:
    elements = tiling.elements(x[0].numel())
    return (x.shape[0], -(-x[0].numel() // elements)), elements
