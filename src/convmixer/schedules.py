"""Schedules of the learning rate by their names: pure functions of the position in a run. No torch.

The names and formulas are those of the MindSpore model zoo's programs, and `onecycle` is that of ConvMixer's authors
(https://github.com/locuslab/convmixer-cifar10). All of them are continuous: the rate changes at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Position:
    """Where in a run a step is: `epoch` of `epochs`, both as floats from its start, `warmup` epochs of them warm-up.

    `step`: the part of an epoch that one step is. `gamma` and `adjust`: the options `lr_gamma` and `lr_adjust`.
    """

    epoch: float
    epochs: float
    warmup: float
    step: float
    gamma: float
    adjust: float


def cosine(position: Position) -> float:
    """0.5 (1 + cos(pi e / E)), where e and E count from the end of the warm-up, so that it starts from 1.

    https://arxiv.org/abs/1608.03983, without restarts. E 300: 1 at 0, 0.853553 at 75, 0.5 at 150.
    """
    done = (position.epoch - position.warmup) / (position.epochs - position.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def onecycle(position: Position) -> float:
    """Straight lines through 0 at 0, 1 at E * 2 // 5, 1 / 20 at E * 4 // 5 and 0 at E, taken a step later.

    As the authors have it: the first step has a rate above 0, the last one's is 0. E 25, 98 steps per epoch, times
    0.05: 0.0000510204 at step 0, 0.025 at 489, 0.05 at 979, 0.02625 at 1469, 0.0025 at 1959, 0 at 2449. Whole epochs
    leave no rise when E < 3; then the corners are at 2/5 and 4/5 of E.
    """
    whole = position.epochs >= 3
    top = position.epochs * 2 // 5 if whole else position.epochs * 2 / 5
    foot = position.epochs * 4 // 5 if whole else position.epochs * 4 / 5
    after = min(position.epoch + position.step, position.epochs)
    return float(np.interp(after, [0.0, top, foot, position.epochs], [0.0, 1.0, 0.05, 0.0]))


def exponential(position: Position) -> float:
    """lr_gamma^e. lr_gamma 0.97, times 0.1: 0.09409 at 2."""
    return math.pow(position.gamma, position.epoch)


def multistep(position: Position) -> float:
    """lr_gamma^(e / lr_adjust), without steps in spite of its name, as in the model zoo.

    lr_gamma 0.1, lr_adjust 30, times 0.1: 0.0316228 at 15, 0.01 at 30.
    """
    return math.pow(position.gamma, position.epoch / position.adjust)


def constant(position: Position) -> float:
    """1."""
    return 1.0


# Factors of the peak learning rate, from the end of the warm-up on.
SCHEDULES: dict[str, Callable[[Position], float]] = {
    "cosine_lr": cosine,
    "onecycle": onecycle,
    "multistep_lr": multistep,
    "exp_lr": exponential,
    "constant_lr": constant,
}
