"""The training loss: cross-entropy against a distribution over the classes. Shapes: B images, K classes."""

from __future__ import annotations

import torch
from torch.nn import functional


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of -sum_k targets log softmax(logits): a scalar, computed in fp32.

    `logits` [B, K] of any float type, `targets` [B, K] with rows that sum to 1. Logits 0, 0 with targets 0.5, 0.5 give
    log 2.
    """
    # bf16 has 8 bits of mantissa: a log-softmax over 1000 classes in it would be noise.
    return functional.cross_entropy(logits.float(), targets.float())
