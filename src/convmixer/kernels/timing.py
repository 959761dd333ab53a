"""Times of single passes on a GPU: of the device's work alone, not of the host that starts it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

_CYCLES_PER_SECOND = 2e9  # of the sleeping kernel; about a GPU's clock
_LONGEST_SLEEP = 0.2  # seconds


def milliseconds(
    calls: Sequence[Callable[[], object]], device: torch.device, *, rounds: int = 5, repeats: int = 10
) -> list[float]:
    """Median milliseconds of each call: in every round each has its turn, so that clocks and neighbours treat all alike.

    A turn is `repeats` calls in a row between two events, queued while the device sleeps: a call that takes longer to
    start than to run is then not timed by its start. No call may wait for the device. On a CPU, by the clock.
    """
    turn = _Turn(device, repeats)
    for call in calls:
        call()  # compiles, and fills the allocator
    times = [[turn(call) for call in calls] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


class _Turn:
    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def __call__(self, call: Callable[[], object]) -> float:
        """Milliseconds of one call of `repeats`."""
        if self.device.type != "cuda":
            begin = time.perf_counter()
            for _ in range(self.repeats):
                call()
            return (time.perf_counter() - begin) * 1e3 / self.repeats
        with torch.cuda.device(self.device):
            return self._queued(call)

    def _queued(self, call: Callable[[], object]) -> float:
        sleep = 2e-3
        while True:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(int(sleep * _CYCLES_PER_SECOND))
            start.record()
            for _ in range(self.repeats):
                call()
            asleep = not start.query()
            end.record()
            end.synchronize()
            # Once the queue is ready before the device wakes up, the host is out of the time; a host that is slow beyond
            # measure is timed with it.
            if asleep or sleep > _LONGEST_SLEEP:
                return start.elapsed_time(end) / self.repeats
            sleep *= 3
