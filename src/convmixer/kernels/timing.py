"""How long calls take on a GPU by themselves, without the time in which the host launches them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]

_CYCLES_PER_MS = 2_000_000  # at about the highest clock of today's GPUs, so that a sleep is never shorter than meant
_MAX_SLEEP_MS = 200.0


def milliseconds(calls: Sequence[Call], *, repeats: int = 5, queued: int = 10, device: torch.device) -> list[float]:
    """The median time of each call, in ms, over `repeats` turns in which each is called `queued` times in a row.

    The calls of a turn are queued behind a sleep of the device's own, which is doubled until all of them are queued
    before it ends: then the events around them time the device, not the host. In turn, so that clocks and neighbours
    treat all alike. Each is called once before, to compile and to be warm.
    """
    with torch.cuda.device(device):
        sleeps = [_warm(call, queued) for call in calls]
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(repeats):
            for index, call in enumerate(calls):
                elapsed, sleeps[index] = _behind_a_sleep(call, queued, sleeps[index])
                times[index].append(elapsed)
    return [statistics.median(values) for values in times]


def _warm(call: Call, queued: int) -> float:
    """Calls twice; how long a sleep may have to be for the host to queue the calls meanwhile, in ms."""
    call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    host = time.perf_counter() - began
    torch.cuda.synchronize()
    return 2e3 * host * queued + 1.0


def _behind_a_sleep(call: Call, queued: int, sleep: float) -> tuple[float, float]:
    """Milliseconds of one call, and the sleep, in ms, that was long enough."""
    while True:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(int(min(sleep, _MAX_SLEEP_MS) * _CYCLES_PER_MS))
        start.record()
        for _ in range(queued):
            call()
        end.record()
        slept = not start.query()
        end.synchronize()
        # A call that itself waits for the device outlasts every sleep; its own time is then the best there is.
        if slept or sleep >= _MAX_SLEEP_MS:
            return start.elapsed_time(end) / queued, sleep
        sleep *= 2
