"""The activations of the kernels against torch's in float64, on a dense grid."""

from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl
from torch import nn

from convmixer.kernels.device.activations import CODES, SHORT_GELU, activate, activation_derivative, code, erf
from convmixer.model import make_activation


# Triton's language has no types.
@triton.jit  # type: ignore[untyped-decorator]
def evaluate(x_ptr, erf_ptr, value_ptr, derivative_ptr, count, ACT: tl.constexpr, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    x = tl.load(x_ptr + offsets, mask=offsets < count)
    tl.store(erf_ptr + offsets, erf(x), mask=offsets < count)
    tl.store(value_ptr + offsets, activate(x, ACT), mask=offsets < count)
    tl.store(derivative_ptr + offsets, activation_derivative(x, ACT), mask=offsets < count)


def results(x: torch.Tensor, activation: str, act: int | None = None) -> tuple[torch.Tensor, ...]:
    out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    elements = 1 << (x.numel() - 1).bit_length() if x.device.type == "cpu" else 1024
    evaluate[(-(-x.numel() // elements),)](
        x, *out, x.numel(), ACT=CODES[activation] if act is None else act, ELEMENTS=elements
    )
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
def test_values_and_derivatives(grid: torch.Tensor, activation: str) -> None:
    x = grid.double().requires_grad_()
    expected = make_activation(activation)(x)
    (derivative,) = torch.autograd.grad(expected.sum(), x)
    _, found, found_derivative = results(grid, activation)
    # The error of erf enters times x / 2; 2e-6 is what it may be at |x| = 4, where erf ends.
    assert (found[:-6].double() - expected.detach()[:-6]).abs().max() < 2e-6
    torch.testing.assert_close(found[-6:].double(), expected.detach()[-6:], rtol=1e-6, atol=1e-6)
    assert (found_derivative.double() - derivative).abs().max() < 2e-6


# numpy's, in the interpreter; the derivative of GELU at infinity is no number, as torch has it.
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("act", [*CODES.values(), SHORT_GELU])
def test_what_is_not_finite_stays_so(device: torch.device, act: int) -> None:
    """A loss must not stay finite after the numbers broke."""
    _, value, _ = results(torch.tensor([float("nan"), float("inf"), 1.0], device=device), "gelu", act)
    assert value.isnan().tolist()[::2] == [True, False]
    assert value.isfinite().tolist() == [False, False, True]


def test_relu_has_torchs_derivative_at_zero(device: torch.device) -> None:
    x = torch.zeros(1, device=device, requires_grad=True)
    nn.functional.relu(x).backward()
    assert x.grad is not None
    assert torch.equal(results(x.detach(), "relu")[2], x.grad)


def exact_gelu(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and derivative in float64, by erfc, which has all digits of the tail."""
    x = x.double()
    below = 0.5 * torch.erfc(-x / math.sqrt(2))
    return x * below, below + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def steps(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance of neighbouring values of dtype at x, float64."""
    finfo = torch.finfo(dtype)
    exponent = torch.floor(torch.log2(x.double().abs().clamp_min(finfo.tiny)))
    return torch.exp2(exponent) * finfo.eps


def test_short_gelu_is_as_exact_as_bf16(device: torch.device) -> None:
    """All bf16 numbers from -1e4 to 1e4; the error of exact rounding would be half a step."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32, device=device).to(torch.int16)
    x = bits.view(torch.bfloat16).float()
    x = x[x.abs() <= 1e4]
    assert x.numel() > 35_000
    value, derivative = exact_gelu(x)
    _, found, found_derivative = results(x, "gelu", SHORT_GELU)

    def within(low: float, high: float) -> tuple[float, float]:
        part = (x >= low) & (x <= high)
        rounded = found[part].bfloat16().double()
        step = steps(value[part], torch.bfloat16)
        return ((rounded - value[part]).abs() / step).max().item(), (found[part] - value[part]).abs().max().item()

    # In steps, and absolutely.
    assert within(-4.2, 1e4)[0] < 0.57
    assert within(-5.5, -4.2)[0] < 0.7
    assert within(-1e4, -5.5)[1] < 1e-9
    # The derivative is a factor of a gradient and crosses 0: its error counts beside the largest derivatives, about 1.
    assert (found_derivative.double() - derivative).abs().max() < 1.2e-4
    far = x.abs() > 6
    assert (found_derivative.double() - derivative)[far].abs().max() < 1e-7


def test_the_short_form_is_for_gelu_of_bf16_maps_alone() -> None:
    assert code("gelu", torch.bfloat16, "short") == SHORT_GELU
    assert code("gelu", torch.bfloat16, "long") == CODES["gelu"]
    for dtype in (torch.float32, torch.float16):
        assert code("gelu", dtype, "short") == CODES["gelu"]
    for activation in ("relu", "gelu_tanh"):
        assert code(activation, torch.bfloat16, "short") == CODES[activation]
