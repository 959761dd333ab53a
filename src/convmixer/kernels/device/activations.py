"""The activations and their derivatives on the device, elementwise in fp32.

erf, for |x| <= 4, is 1 - 2^(-x q(x)) with a polynomial q of degree 6, fitted to -log2(erfc(x)) / x so that the largest
error of erf is least: 1.6e-7 in fp32 arithmetic, and exactly 1 from 4 on.

For bf16 maps GELU has a shorter form, relu(x) - a * tail(a) at a = |x|: the normal distribution's upper tail is
2^(-p(a)) with a polynomial p of degree 5 and p(0) = 1, fitted by a linear program so that the largest relative error of
the tail is least: 2.7e-4 up to a = 4.2, growing to 2.7e-3 at 6. The first is an eighth of what rounding to bf16 may do,
and as much as rounding to fp16 does, which therefore keeps the long form.
"""

# mypy: ignore-errors
from __future__ import annotations

import torch
import triton
import triton.language as tl

CODES = {"relu": 0, "gelu": 1, "gelu_tanh": 2}
"""Names of the activations as `Architecture` has them -> the constexpr `ACT` of the kernels."""

IDENTITY = -1
"""`ACT` of a kernel that takes its input as it stands."""

SHORT_GELU = 3
"""`ACT` of GELU by the shorter polynomial, for bf16 maps."""


def code(activation: str, dtype: torch.dtype, erf: str) -> int:
    """`ACT` for maps of this type; erf is "short" or "long", and "short" is for bf16 alone."""
    return SHORT_GELU if (activation, dtype, erf) == ("gelu", torch.bfloat16, "short") else CODES[activation]


@triton.jit
def erf(x):
    a = tl.minimum(tl.abs(x), 4.0)
    q = -0.00010021156776929274 * a + 0.0004615209181793034
    q = q * a + 0.0023023441899567842
    q = q * a - 0.029452616348862648
    q = q * a + 0.14896371960639954
    q = q * a + 0.9183286428451538
    q = q * a + 1.6279137134552002
    magnitude = 1.0 - tl.exp2(-(q * a))
    return tl.where(x < 0.0, -magnitude, magnitude)


@triton.jit
def upper_tail(a):
    """The normal distribution's probability beyond a >= 0, for bf16 results."""
    p = 0.00024280237266793847 * a - 0.005018644966185093
    p = p * a + 0.045396458357572556
    p = p * a + 0.4678942859172821
    p = p * a + 1.1478248834609985
    return tl.exp2(-(p * a + 1.0))


@triton.jit
def logistic(x):
    # Bounded, so that exp stays finite; below, the result is 0 to fp32 in every use.
    return 1.0 / (1.0 + tl.exp(-tl.maximum(x, -80.0)))


@triton.jit
def activate(x, ACT: tl.constexpr):
    """act(x): ReLU, GELU by erf, by tanh, as x * logistic(2 t) with t the argument of tanh, or by the upper tail."""
    if ACT == 0:
        # A NaN must not become 0 and be hidden from the loss.
        result = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACT == 1:
        result = 0.5 * x * (1.0 + erf(x * 0.7071067811865476))
    elif ACT == 2:
        result = x * logistic(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif ACT == 3:
        a = tl.abs(x)
        result = tl.maximum(x, 0.0) - a * upper_tail(a)
    else:
        result = x
    return result


@triton.jit
def activation_derivative(x, ACT: tl.constexpr):
    """The derivative of `activate`; 0 for ReLU at 0, as torch has it."""
    if ACT == 0:
        result = tl.where(x > 0.0, 1.0, 0.0)
    elif ACT == 1:
        density = 0.3989422804014327 * tl.exp2(-0.7213475204444817 * x * x)
        result = 0.5 * (1.0 + erf(x * 0.7071067811865476)) + x * density
    elif ACT == 2:
        gate = logistic(1.5957691216057308 * (x + 0.044715 * x * x * x))
        result = gate + x * gate * (1.0 - gate) * (1.5957691216057308 + 0.21406444881780073 * x * x)
    elif ACT == 3:
        a = tl.abs(x)
        below = upper_tail(a) - a * tl.exp2(-0.7213475204444817 * x * x - 1.3257480647361593)
        result = tl.where(x < 0.0, below, 1.0 - below)
    else:
        result = tl.full(x.shape, 1.0, tl.float32)
    return result
