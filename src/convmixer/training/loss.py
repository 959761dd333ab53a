"""The training losses against a distribution over the classes. Shapes: B images, K classes; all computed in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from convmixer.config.schema import Config

# What is minimised: logits [B, K] of any float type and targets [B, K] give a scalar.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of -sum_k targets log softmax(logits): a scalar, computed in fp32.

    `logits` [B, K] of any float type, `targets` [B, K] with rows that sum to 1. Logits 0, 0 with targets 0.5, 0.5 give
    log 2.
    """
    # bf16 has 8 bits of mantissa: a log-softmax over 1000 classes in it would be noise.
    return functional.cross_entropy(logits.float(), targets.float())


def cross_entropy_by_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """What `soft_cross_entropy` is the mean of, [B]."""
    return functional.cross_entropy(logits.float(), targets.float(), reduction="none")


def binary_cross_entropy_by_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Each class a question of its own: the mean over the classes of the binary cross-entropy, [B].

    Soft targets are taken as they are. So "ResNet strikes back" (https://arxiv.org/abs/2110.00476) is trained by timm's
    BinaryCrossEntropy, but for its option of counting each class of a mixed image as whole. Logits 0, 0 give log 2.
    """
    by_class = functional.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return by_class.mean(1)


def focal_by_image(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """-sum_k targets (1 - p)^gamma log p of p = softmax(logits), [B] (Lin et al. 2017, arXiv 1708.02002).

    The paper has one true class; here each counts by its share in the target. Logits 0, 0 with gamma 2 give log 2 / 4.
    """
    log_p = logits.float().log_softmax(1)
    # Not quite 0: there the slope of a power below 1 has no end, and 0 times it would be no number.
    rest = (-log_p.expm1()).clamp(min=torch.finfo(torch.float32).eps)
    return -(targets.float() * rest**gamma * log_p).sum(1)


class WeightedMean:
    """The mean over the batch of what `by_image` gives, each image weighted.

    An image's weight is the mean of the weights of the classes that it shows, by their shares in its target before
    smoothing: smoothing names all classes of every image, and would bring all weights together. Nothing is divided by
    the sum of the weights, so that processes and micro-batches together have the loss of the whole batch.
    """

    def __init__(
        self, by_image: Loss, class_weights: np.ndarray, smoothing: float, device: torch.device | str = "cpu"
    ) -> None:
        # targets = (1 - smoothing) shares + smoothing / K, and their rows sum to 1: with these the sum over the
        # targets is that of the plain weights over the shares.
        adjusted = (class_weights - smoothing * class_weights.mean()) / (1 - smoothing)
        self.by_image = by_image
        self.class_weights = torch.tensor(adjusted, dtype=torch.float32, device=device)

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self.by_image(logits, targets) * (targets.float() @ self.class_weights)).mean()


def create_loss(config: Config, class_weights: np.ndarray | None = None, device: torch.device | str = "cpu") -> Loss:
    """The loss that the options name; `class_weights` float [K], None where all classes count alike."""
    if config.loss == "ce" and class_weights is None:
        return soft_cross_entropy

    def focal(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return focal_by_image(logits, targets, config.focal_gamma)

    by_image = {"ce": cross_entropy_by_image, "bce": binary_cross_entropy_by_image, "focal": focal}[config.loss]
    if class_weights is None:
        return lambda logits, targets: by_image(logits, targets).mean()
    return WeightedMean(by_image, class_weights, config.label_smoothing, device)
