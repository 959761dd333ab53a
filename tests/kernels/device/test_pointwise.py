"""The three products of the pointwise convolution, by Triton and by the library, against float64."""

from __future__ import annotations

import pytest
import torch
from tests.kernels.device.conftest import Near

from convmixer.kernels import pointwise_launch, tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.plan import Plan
from convmixer.model import make_activation

# Tiles of Triton's products that the sizes below are not multiples of.
PLANS = ("products=library", "products=triton pointwise=16x32x16x4x2 pointwise_grad=16x32x16x4x2")
COLUMN = (slice(None), None, None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_forward(activation: str, plan: str, dtype: torch.dtype, device: torch.device, assert_near: Near) -> None:
    """The product has no bias, its sums have; they are of the product as it is stored."""
    x = torch.randn(35, 3, 5, 7, device=device).to(dtype)
    weight, bias = torch.randn(19, 35, 1, 1, device=device), torch.randn(19, device=device)
    out, sums = pointwise_launch.forward(x, weight, bias, activation, Plan.parse(plan))
    assert out.dtype == dtype
    exact = weight[:, :, 0, 0].to(dtype).double()
    assert_near(out, torch.einsum("oi,inhw->onhw", exact, x.double()), dtype)
    activated = make_activation(activation)(out.double() + bias.double()[COLUMN])
    expected = torch.stack((activated.sum((1, 2, 3)), activated.square().sum((1, 2, 3))))
    assert_near(sums, expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_backward(
    activation: str, plan: str, kept: bool, dtype: torch.dtype, device: torch.device, assert_near: Near
) -> None:
    """Sums of the gradient as it is stored; the weight's gradient from the mixed map, kept or made again."""
    grad, x, h = (torch.randn(c, 3, 5, 7, device=device).to(dtype) for c in (35, 19, 19))
    weight, vectors = torch.randn(35, 19, 1, 1, device=device), torch.randn(5, 19, device=device)
    of_x = Normalise(vectors[0], vectors[1], activation, vectors[4])
    of_h = Normalise(vectors[2], vectors[3], activation)
    act, exact = make_activation(activation), vectors.double()
    active_h = act(h.double())
    mixed = exact[0][COLUMN] * act(x.double() + exact[4][COLUMN]) + exact[2][COLUMN] * active_h
    mixed = (mixed + (exact[1] + exact[3])[COLUMN]).to(dtype)
    found, sums, weight_grad = pointwise_launch.backward(
        grad, weight, x, h, mixed if kept else None, of_x, of_h, Plan.parse(plan)
    )
    matrix = weight[:, :, 0, 0].to(dtype).double()
    assert_near(found, torch.einsum("oi,onhw->inhw", matrix, grad.double()), dtype)
    stored = found.double()
    expected = torch.stack((stored.sum((1, 2, 3)), (stored * active_h).sum((1, 2, 3))))
    assert_near(sums, expected, torch.float32)
    assert weight_grad.shape == weight.shape
    exact_grad = torch.einsum("onhw,inhw->oi", grad.double(), mixed.double())[:, :, None, None]
    assert_near(weight_grad, exact_grad, torch.float32 if kept else dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_of_the_weight_is_not_rounded_to_16_bits(dtype: torch.dtype, device: torch.device) -> None:
    """4096 products of 1 + 1/64 and 1, and one that a 16-bit sum of 4,160 would lose."""
    grad, x = torch.full((1, 1, 1, 4097), 1 + 1 / 64, device=device), torch.ones(1, 1, 1, 4097, device=device)
    grad[..., -1] = 2**-6
    found = pointwise_launch.weight_grad(grad.to(dtype), x.to(dtype))
    assert found.dtype == torch.float32
    assert found.item() == 4096 + 64 + 2**-6


def test_an_unbiased_product_over_several_tiles(device: torch.device, assert_near: Near) -> None:
    """As inference takes it, without sums."""
    x, weight = torch.randn(35, 3, 5, 7, device=device), torch.randn(19, 35, 1, 1, device=device)
    tiles = tiling.PointwiseTiles(outputs=16, positions=32, inputs=16, warps=4, stages=2)
    out, sums = pointwise_launch.pointwise(x, weight, tiles=tiles)
    assert_near(out, torch.einsum("oi,inhw->onhw", weight[:, :, 0, 0].double(), x.double()), torch.float32)
    assert sums.numel() == 0
