"""Multinomial logistic regression on features, with an L2 penalty whose strength is chosen by validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from convmixer.randomness import Stream, hashes

# Of the penalty strength / 2 * |weights|^2 beside the mean cross-entropy, on features of variance 1.
STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001)
VALIDATION = 0.2  # of the training images of each class
_ITERATIONS = 300  # of LBFGS, each with a few evaluations of all features


@dataclass(frozen=True)
class Head:
    """A linear head: `weight` float32 [classes, D] and `bias` [classes]."""

    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """[n, D] -> [n, classes]."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True)
class Tried:
    """A strength, and the accuracy (0 to 1) and mean cross-entropy on the images that were held out."""

    strength: float
    accuracy: float
    loss: float


def fit(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    strength: float,
    weights: torch.Tensor | None = None,
    start: Head | None = None,
) -> Head:
    """The minimum of mean(weight * cross-entropy) + strength / 2 * |W|^2 by LBFGS; features [n, D], labels int64 [n].

    W belongs to the features less their mean, in units of their standard deviation; the head that is returned takes
    the features as they are. The bias is not penalised. `weights` [n]: of the images, all 1 where left out. `start`: a
    head near the minimum. The problem is convex, so that the result depends on neither it nor a seed.
    """
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    std = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std))  # a feature that never varies
    scaled = (features - mean) / std
    weight = features.new_zeros(classes, features.shape[1]) if start is None else start.weight * std
    bias = features.new_zeros(classes) if start is None else start.bias + start.weight @ mean
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        losses = nn.functional.cross_entropy(scaled @ weight.T + bias, labels, reduction="none")
        mean_loss = (losses if weights is None else losses * weights).mean()
        loss = mean_loss + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        own = weight / std
        return Head(own, bias - own @ mean)


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Whether an image is for validation, bool [n]: a fifth of each class, drawn by the seed; none of a single one."""
    is_val = np.zeros(len(labels), dtype=bool)
    draws = hashes(Stream.HOLD_OUT, seed, np.arange(len(labels)))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(VALIDATION * len(members)), 1), len(members) - 1)
        is_val[members[np.argsort(draws[members], kind="stable")[:count]]] = True
    return is_val


def try_strengths(
    train: torch.Tensor,
    train_labels: torch.Tensor,
    val: torch.Tensor,
    val_labels: torch.Tensor,
    classes: int,
    weights: torch.Tensor | None = None,
) -> list[Tried]:
    """What each of `STRENGTHS` gives on the images that were held out: [n, D] and [m, D] with their labels."""
    tried, head = [], None
    for strength in STRENGTHS:
        head = fit(train, train_labels, classes, strength, weights, head)
        logits = head.logits(val)
        accuracy = (logits.argmax(dim=1) == val_labels).double().mean()
        tried.append(Tried(strength, float(accuracy), float(nn.functional.cross_entropy(logits, val_labels))))
    return tried


def best_of(tried: Sequence[Tried]) -> float:
    """The strength of the best accuracy, of equals that of the lowest loss."""
    return max(tried, key=lambda one: (one.accuracy, -one.loss)).strength
