"""The depthwise half of a block backwards against torch's own gradients in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.kernels.device.conftest import Near
from torch import nn

from convmixer.kernels import block_launch, tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.model import make_activation

LARGE = [(k, *size) for k in (3, 5, 7, 9) for size in ((2, 31, 33), (3, 1, 65), (2, 33, 1), (70, 16, 16), (67, 5, 32))]


def check(
    k: int,
    batch: int,
    height: int,
    width: int,
    activation: str,
    dtype: torch.dtype,
    device: torch.device,
    near: Near,
    tiles: tiling.DepthwiseTiles | None = None,
) -> None:
    """All five gradients, of two channels; each scale, shift, coefficient and bias of x is random, far from 1 and 0."""
    grad, h, x = (torch.randn(2, batch, height, width, device=device).to(dtype) for _ in range(3))
    weight, coefficients, (scale, shift, bias) = (
        torch.randn(size, device=device) for size in ((2, 1, k, k), (3, 2), (3, 2))
    )
    x_grad, weight_grad, sums = block_launch.depthwise_block_grad(
        grad, h, x, weight, coefficients, Normalise(scale, shift, activation, bias), tiles=tiles
    )

    act = make_activation(activation)
    grad64, h64, x64, scale64, shift64 = (tensor.double() for tensor in (grad, h, x, scale, shift))
    weight64 = weight.to(dtype).double()
    for tensor in (h64, x64, scale64, shift64, weight64):
        tensor.requires_grad_()
    a, b, d = coefficients.double()[:, :, None, None, None]
    active = act(h64)
    (h_grad,) = torch.autograd.grad(active, h64, a * grad64 + b * active.detach() + d)
    with_bias = x64 + bias.double()[:, None, None, None]
    z = scale64[:, None, None, None] * act(with_bias) + shift64[:, None, None, None]
    convolved = nn.functional.conv2d(z.transpose(0, 1), weight64, padding="same", groups=2).transpose(0, 1)
    of_x, of_weight, of_scale, of_shift = torch.autograd.grad(
        (convolved, z), (x64, weight64, scale64, shift64), (h_grad, grad64)
    )
    factor = 3 if dtype == torch.float16 else 2
    assert x_grad.dtype == dtype
    near(x_grad, of_x, dtype, factor)
    near(weight_grad, of_weight, dtype, factor)
    near(sums, torch.stack((h_grad.sum((1, 2, 3)), of_shift, of_scale)), dtype, factor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("k", "batch", "height", "width", "activation"),
    [
        (3, 1, 5, 7, "relu"),
        (5, 2, 5, 7, "gelu"),
        (7, 17, 4, 3, "relu"),
        (7, 2, 2, 18, "gelu_tanh"),
        (9, 2, 5, 18, "gelu"),
    ],
)
def test_all_gradients(
    k: int,
    batch: int,
    height: int,
    width: int,
    activation: str,
    dtype: torch.dtype,
    device: torch.device,
    assert_near: Near,
) -> None:
    check(k, batch, height, width, activation, dtype, device, assert_near)


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize(("k", "batch", "height", "width"), [(3, 17, 2, 5), (7, 2, 4, 18), (9, 1, 3, 35)])
def test_rows_loaded_ahead(
    k: int,
    batch: int,
    height: int,
    width: int,
    prefetch: int,
    device: torch.device,
    assert_near: Near,
) -> None:
    tiles = replace(tiling.block_grad_tiles(batch, width, torch.float32, k), prefetch=prefetch)
    check(k, batch, height, width, "gelu", torch.float32, device, assert_near, tiles)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("number", "shape"), list(enumerate(LARGE)))
def test_all_gradients_of_larger_maps(
    number: int,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    assert_near: Near,
) -> None:
    # One activation for each shape, so that each meets every side of kernel: 5 shapes per side, 3 activations.
    activation = ("relu", "gelu", "gelu_tanh")[number % 3]
    check(*shape, activation, dtype, device, assert_near)


@pytest.mark.parametrize(("splits", "width"), [(1, 5), (2, 5), (3, 5), (2, 35)])
def test_sums_over_several_groups_of_images_in_parts(
    splits: int, width: int, device: torch.device, monkeypatch: pytest.MonkeyPatch, assert_near: Near
) -> None:
    """35 images are three groups of 16: one part takes all, or two take two and one, or three one each."""
    assert tiling.block_grad_tiles(35, width, torch.float32, 3).images == 16
    monkeypatch.setattr(tiling, "weight_grad_splits", lambda channels, groups: min(splits, groups))
    check(3, 35, 3, width, "gelu", torch.float32, device, assert_near)
