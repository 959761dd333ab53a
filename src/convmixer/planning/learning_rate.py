"""The curve of a learning-rate range test and what it suggests; arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WIDTH = 0.5  # of the Gaussian that smooths the losses over the logarithm of the rate: a factor of 1.65
_LEADING = 10  # steps whose losses say where the curve begins
_EXPLODED = 4.0  # times the lowest running mean
_KEPT = 0.9  # of the running mean, the part that the next step keeps


def exponential(start: float, end: float, steps: int) -> np.ndarray:
    """`steps` rates from `start` to `end`, each the same factor above the one before."""
    return np.geomspace(start, end, steps)


def running_mean(losses: Sequence[float]) -> np.ndarray:
    """The exponential moving average, s_t = 0.9 s_(t-1) + 0.1 loss_t from s = 0, divided by 1 - 0.9^t.

    The division makes it a mean of the losses so far from the first step on (Adam's correction). It lags behind.
    """
    mean, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = _KEPT * mean + (1 - _KEPT) * loss
        found.append(mean / (1 - _KEPT**step))
    return np.array(found)


def has_exploded(losses: Sequence[float]) -> bool:
    """Whether the running mean of the losses is more than four times its lowest value."""
    means = running_mean(losses)
    return bool(means[-1] > _EXPLODED * means.min())


@dataclass(frozen=True)
class Curve:
    """Learning rates [n], losses [n], and `trend` [n], the losses smoothed over rates; `start`: where they begin."""

    rates: np.ndarray
    losses: np.ndarray
    trend: np.ndarray
    start: float

    @classmethod
    def of(cls, rates: np.ndarray, losses: Sequence[float]) -> Curve:
        """The trend at a rate is the mean of the losses, weighed by how near their rates are: it does not lag.

        Losses count as no higher than the first ones, or a single one that explodes would lift all beside it.
        """
        values = np.asarray(losses, dtype=float)
        start = float(values[:_LEADING].max())
        logarithms = np.log(rates)
        weights = np.exp(-0.5 * ((logarithms[:, None] - logarithms[None]) / _WIDTH) ** 2)
        return cls(rates, values, weights @ np.minimum(values, start) / weights.sum(axis=1), start)

    @property
    def suggestion(self) -> float:
        """The rate at which the trend is lowest: as a peak of the schedule, at which only some steps are made."""
        return float(self.rates[int(self.trend.argmin())])

    @property
    def falls_to_the_end(self) -> bool:
        """Whether the trend is lowest at the end, so that higher rates may be better still."""
        return bool(self.rates[-1] < self.suggestion * np.exp(_WIDTH))
