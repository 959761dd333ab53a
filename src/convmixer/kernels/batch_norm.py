"""BatchNorm after an activation as a scale and a shift of each channel, in fp32, and its running statistics.

A BatchNorm's result is scale * a + shift with scale = weight / sqrt(var + eps) and shift = bias - mean * scale. It is
never folded into the convolution behind it: padding follows BatchNorm, so that the shift must not reach the border.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class Moments(NamedTuple):
    """Mean and biased variance of each channel, [C]."""

    mean: torch.Tensor
    var: torch.Tensor


def moments_of(sums: torch.Tensor, count: int) -> Moments:
    """From the sums [2, C] of the values and of their squares over `count` values per channel."""
    mean = sums[0] / count
    # The two terms may cancel to a small negative number.
    return Moments(mean, (sums[1] / count - mean * mean).clamp(min=0))


def running_moments(norm: nn.BatchNorm2d) -> Moments:
    """The running statistics, which evaluation uses."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return Moments(norm.running_mean.float(), norm.running_var.float())


def scale_and_shift(
    moments: Moments, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """scale, shift and 1 / sqrt(var + eps), each fp32 [C]; differentiable."""
    deviation = torch.rsqrt(moments.var + eps)
    scale = weight.float() * deviation
    return scale, bias.float() - moments.mean * scale, deviation


def norm_backward(
    sums: torch.Tensor,
    moments: Moments,
    weight: torch.Tensor,
    scale: torch.Tensor,
    deviation: torch.Tensor,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Backwards: gradients of weight and bias, fp32 [C], and fp32 [3, C], the coefficients of the values' own gradient.

    From the sums, fp32 [2, C], of the result's gradient g and of g * a, over `count` values a of a channel, and what
    `scale_and_shift` gave. The gradient of a is coefficients[0] * g + coefficients[1] * a + coefficients[2].
    """
    bias_grad, dot = sums
    centred = dot - moments.mean * bias_grad
    var_grad = weight.float() * centred * -0.5 * deviation**3
    constant = (-scale * bias_grad - 2 * var_grad * moments.mean) / count
    return centred * deviation, bias_grad, torch.stack((scale, 2 * var_grad / count, constant))


@torch.no_grad()
def update_running(norm: nn.BatchNorm2d, moments: Moments, count: int) -> None:
    """As a training pass of nn.BatchNorm2d over `count` values per channel; the variance enters unbiased."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    # Without a momentum, a plain average over all batches.
    weight = 1.0 / norm.num_batches_tracked.float() if norm.momentum is None else norm.momentum
    unbiased = moments.var * (count / max(count - 1, 1))
    norm.running_mean.lerp_(moments.mean.to(norm.running_mean.dtype), weight)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), weight)
