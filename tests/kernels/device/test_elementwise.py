"""The passes over whole maps against torch in float64, with a bias that the reader adds and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.kernels.device.conftest import Near

from convmixer.kernels import elementwise_launch, tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.model import make_activation

COLUMN = (slice(None), None, None, None)
SIZE = (3, 31, 33)  # more positions of a channel than a program takes, and no multiple

pytestmark = [
    pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16]),
    pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"]),
    pytest.mark.parametrize("biased", [True, False]),
]


@pytest.fixture
def bias(biased: bool, device: torch.device) -> torch.Tensor | None:
    return torch.randn(2, device=device) if biased else None


@pytest.fixture
def maps(dtype: torch.dtype, device: torch.device) -> Callable[[], torch.Tensor]:
    assert tiling.elements(3 * 31 * 33) < 3 * 31 * 33
    return lambda: torch.randn(2, *SIZE, device=device).to(dtype)


def exact(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.double() if bias is None else x.double() + bias.double()[COLUMN]


def sums_of(*maps: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.sum((1, 2, 3)) for x in maps])


def test_sums(
    activation: str, dtype: torch.dtype, bias: torch.Tensor | None, maps: Callable[[], torch.Tensor], assert_near: Near
) -> None:
    h = maps()
    active = make_activation(activation)(exact(h, bias))
    found = elementwise_launch.activation_sums(h, bias, activation)
    assert_near(found, sums_of(active, active.square()), torch.float32)


def test_gradient_of_a_map_and_its_sums(
    activation: str, dtype: torch.dtype, bias: torch.Tensor | None, maps: Callable[[], torch.Tensor], assert_near: Near
) -> None:
    grad, h = maps(), maps()
    sums_grad = torch.randn(2, 2, device=h.device)
    found, total = elementwise_launch.activation_grad(grad, h, bias, sums_grad, activation)
    v = exact(h, bias).requires_grad_()
    active = make_activation(activation)(v)
    outputs = (v * 1.0, sums_of(active, active.square()))
    (expected,) = torch.autograd.grad(outputs, v, (grad.double(), sums_grad.double()))
    assert_near(found, expected, dtype)
    assert_near(total, expected.sum((1, 2, 3)), torch.float32, 2)


def test_mix_and_the_sums_of_its_gradient(
    activation: str, dtype: torch.dtype, bias: torch.Tensor | None, maps: Callable[[], torch.Tensor], assert_near: Near
) -> None:
    grad, x, h = maps(), maps(), maps()
    vectors = torch.randn(4, 2, device=x.device)
    of_x, of_h = Normalise(vectors[0], vectors[1], activation, bias), Normalise(vectors[2], vectors[3], activation)
    act = make_activation(activation)
    x_scale, x_shift, h_scale, h_shift = (vector.double()[COLUMN] for vector in vectors)
    active_h = act(h.double())
    expected = x_scale * act(exact(x, bias)) + x_shift + h_scale * active_h + h_shift
    mixed = elementwise_launch.mix(x, h, of_x, of_h)
    assert_near(mixed, expected, dtype)
    sums, again = elementwise_launch.norm_sums(grad, h, x, of_x, of_h, mix=True)
    assert again is not None
    assert_near(again, expected, dtype)
    assert_near(sums, sums_of(grad.double(), grad.double() * active_h), torch.float32, 2)
    alone, nothing = elementwise_launch.norm_sums(grad, h, x, of_x, of_h, mix=False)
    assert nothing is None
    assert_near(alone, sums.double(), torch.float32)


def test_pooling_and_its_gradient(
    activation: str, dtype: torch.dtype, bias: torch.Tensor | None, maps: Callable[[], torch.Tensor], assert_near: Near
) -> None:
    """Means of 16-bit maps are fp32's: no rounding but the maps' own."""
    x = maps()
    v = exact(x, bias).requires_grad_()
    means = make_activation(activation)(v).mean((2, 3)).t()
    found = elementwise_launch.pool(x, bias, activation)
    assert_near(found, means.detach(), torch.float32)
    grad = torch.randn(found.shape, device=x.device)
    (expected,) = torch.autograd.grad(means, v, grad.double())
    assert_near(elementwise_launch.pool_grad(grad, x, bias, activation), expected, dtype)
