"""The curve of a learning-rate range test and what it suggests; arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SMOOTHING = 0.9  # of the mean of the losses, the part that the next step keeps
LAG = 9  # steps: 0.9 / (1 - 0.9)
_EXPLODED = 4.0  # times the lowest smoothed loss


def exponential(start: float, end: float, steps: int) -> np.ndarray:
    """`steps` rates from `start` to `end`, each the same factor above the one before."""
    return np.geomspace(start, end, steps)


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """The exponential moving average, s_t = 0.9 s_(t-1) + 0.1 loss_t from s = 0, divided by 1 - 0.9^t.

    The division makes it a mean of the losses so far from the first step on (Adam's correction). It lags behind.
    """
    sums, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        sums = SMOOTHING * sums + (1 - SMOOTHING) * loss
        found.append(sums / (1 - SMOOTHING**step))
    return np.array(found)


def has_exploded(losses: Sequence[float]) -> bool:
    """Whether the smoothed loss is more than four times its lowest value."""
    curve = smoothed(losses)
    return bool(curve[-1] > _EXPLODED * curve.min())


@dataclass(frozen=True)
class Curve:
    """Learning rates [n] and their losses [n]; `trend` [n - 9]: the smoothed losses at the first n - 9 rates."""

    rates: np.ndarray
    losses: np.ndarray
    trend: np.ndarray

    @classmethod
    def of(cls, rates: np.ndarray, losses: Sequence[float]) -> Curve:
        """What is smoothed lags behind a straight line by nine steps, and is put back by these.

        Smoothing backwards too would not lag, and would show the end, where losses explode, long before it.
        """
        return cls(rates, np.asarray(losses), smoothed(losses)[LAG:])

    @property
    def steepest(self) -> float:
        """The rate at which the trend falls fastest per factor of the rate, before its minimum."""
        slope = np.gradient(self.trend)[: int(self.trend.argmin()) + 1]
        return float(self.rates[int(slope.argmin())])

    @property
    def lowest(self) -> float:
        """The rate at which the trend is lowest."""
        return float(self.rates[int(self.trend.argmin())])

    @property
    def suggestion(self) -> float:
        """A peak of the schedule: the geometric mean of the two.

        At the steepest a step gains most, and a schedule that is below its peak most of the time may go above that;
        at the lowest the gain of higher rates is used up.
        """
        return float(np.sqrt(self.steepest * self.lowest))
