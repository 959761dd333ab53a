"""The device of these tests, and the one measure of an error that they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Near = Callable[..., None]

# Relative to the largest value; the type's rounding of a result, or of the terms of an fp32 sum.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def _assert_near(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    assert actual.shape == expected.shape
    assert expected.dtype == torch.float64
    max_value = expected.abs().max()
    assert max_value > 0
    error = ((actual.double() - expected).abs().max() / max_value).item()
    assert error <= factor * TOLERANCE[dtype], f"off by {error:.2e} of the maximum"


@pytest.fixture
def assert_near() -> Near:
    """`assert_near(actual, expected, dtype, factor=1)`: expected in float64, dtype of the arithmetic under test."""
    return _assert_near


@pytest.fixture(autouse=True)
def _numbers_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has a generator of its own; with the CPU's numbers it is asked what the interpreter has answered right."""
    randn = torch.randn

    def drawn(*size: Any, device: Any = None, requires_grad: bool = False, **options: Any) -> torch.Tensor:
        return randn(*size, **options).to(device).requires_grad_(requires_grad)

    def drawn_like(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor).copy_(randn(tensor.shape, dtype=tensor.dtype))

    monkeypatch.setattr(torch, "randn", drawn)
    monkeypatch.setattr(torch, "randn_like", drawn_like)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
