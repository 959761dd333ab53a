"""The activations of the kernels against torch's in float64, on a dense grid."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import nn

from convmixer.kernels.device.activations import CODES, activate, activation_slope, erf
from convmixer.model import make_activation


@triton.jit
def evaluate(x_ptr, erf_ptr, value_ptr, slope_ptr, count, ACT: tl.constexpr, ELEMENTS: tl.constexpr):
    places = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    x = tl.load(x_ptr + places, mask=places < count)
    tl.store(erf_ptr + places, erf(x), mask=places < count)
    tl.store(value_ptr + places, activate(x, ACT), mask=places < count)
    tl.store(slope_ptr + places, activation_slope(x, ACT), mask=places < count)


def results(x: torch.Tensor, activation: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    elements = 1 << (x.numel() - 1).bit_length() if x.device.type == "cpu" else 1024
    evaluate[(-(-x.numel() // elements),)](x, *out, x.numel(), ACT=CODES[activation], ELEMENTS=elements)
    return out


@pytest.fixture
def grid(device: torch.device) -> torch.Tensor:
    """600,001 points with a spacing of 2e-5 around 0, and a few far out."""
    dense = torch.linspace(-6, 6, 600_001, dtype=torch.float32, device=device)
    return torch.cat((dense, torch.tensor([-1e4, -100.0, -9.0, 9.0, 100.0, 1e4], device=device)))


def test_erf_is_within_1e_6_and_ends_at_exactly_one(grid: torch.Tensor) -> None:
    found = results(grid, "gelu")[0]
    assert (found.double() - torch.erf(grid.double())).abs().max() < 1e-6
    assert torch.equal(found[-3:].cpu(), torch.ones(3))
    assert torch.equal(found, -results(-grid, "gelu")[0])


@pytest.mark.parametrize("activation", CODES)
def test_values_and_slopes(grid: torch.Tensor, activation: str) -> None:
    x = grid.double().requires_grad_()
    expected = make_activation(activation)(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    _, found, found_slope = results(grid, activation)
    # The error of erf enters times x / 2; 2e-6 is what it may be at |x| = 4, where erf ends.
    assert (found[:-6].double() - expected.detach()[:-6]).abs().max() < 2e-6
    torch.testing.assert_close(found[-6:].double(), expected.detach()[-6:], rtol=1e-6, atol=1e-6)
    assert (found_slope.double() - slope).abs().max() < 2e-6


@pytest.mark.parametrize("activation", CODES)
def test_nan_stays_nan(device: torch.device, activation: str) -> None:
    """A loss must not stay finite after the numbers broke."""
    _, value, _ = results(torch.tensor([float("nan"), 1.0], device=device), activation)
    assert value.isnan().tolist() == [True, False]


def test_relu_has_torchs_slope_at_zero(device: torch.device) -> None:
    x = torch.zeros(1, device=device, requires_grad=True)
    nn.functional.relu(x).backward()
    assert torch.equal(results(x.detach(), "relu")[2], x.grad)
