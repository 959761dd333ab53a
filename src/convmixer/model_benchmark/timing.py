"""Times of model files on the same machine: in turns, so that whatever else it does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from convmixer.errors import UserError

ROUNDS = 10
_WARM_UP = 0.2  # seconds, of calls that are not counted
# Threads of an engine turn in circles for a while after its answer, and would take the processor from the next one.
_REST = 0.02


@dataclass(frozen=True)
class Times:
    """Seconds of each call on a batch of `batch` images; at least one."""

    batch: int
    seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Images per second, by the median call."""
        return self.batch / float(np.median(self.seconds))

    def milliseconds(self, percentile: float) -> float:
        """The time of a call that so many per cent of the calls do not exceed."""
        return 1000 * float(np.percentile(self.seconds, percentile))


def measure(calls: Sequence[Callable[[], object]], batch: int, seconds: float) -> list[Times | UserError]:
    """The times of each call, which answers a batch of `batch` images, or what it failed with.

    Each is warmed up; then all take turns for `ROUNDS` rounds, a tenth of `seconds` each, one call at least.
    """
    found: list[list[float]] = [[] for _ in calls]
    failed: dict[int, UserError] = {}
    for number, call in enumerate(calls):
        try:
            _run_for(call, _WARM_UP)
        except UserError as error:
            failed[number] = error
    for _ in range(ROUNDS):
        for number, call in enumerate(calls):
            if number in failed:
                continue
            time.sleep(_REST)
            try:
                call()  # the caches are the other's
                found[number] += _run_for(call, seconds / ROUNDS)
            except UserError as error:
                failed[number] = error
    return [failed.get(number) or Times(batch, tuple(times)) for number, times in enumerate(found)]


def _run_for(call: Callable[[], object], seconds: float) -> list[float]:
    """The time of each call, of as many as begin within `seconds`."""
    times, end = list[float](), time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
