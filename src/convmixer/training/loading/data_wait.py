"""How long the device waited for data, and what that says about the loader."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TypeVar

import torch

_Batch = TypeVar("_Batch")

# Share of the time of training that is worth a word, and how much of it must have been seen.
_NOTICED = 0.1
_ENOUGH = 10.0  # seconds


class DataWait:
    """Passes batches on and measures how long the device had nothing to do until each of them came."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._pending: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def measured(self, batches: Iterator[_Batch]) -> Iterator[_Batch]:
        """The same batches."""
        while True:
            # A GPU works on while the host waits. Between these two events it does nothing: the first is reached when
            # all work before is done, the second as soon as there is a batch.
            events = self._events()
            start = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            if events is None:
                self._seconds += time.monotonic() - start
            else:
                events[1].record()
                self._pending.append(events)
            yield batch

    def take(self) -> float:
        """Seconds since the last call. On a GPU those of steps that are done, which asks it nothing that it has to wait
        for."""
        seconds, self._seconds = self._seconds, 0.0
        while self._pending and self._pending[0][1].query():
            first, second = self._pending.pop(0)
            seconds += first.elapsed_time(second) / 1000
        return seconds

    def _events(self) -> tuple[torch.cuda.Event, torch.cuda.Event] | None:
        if not self._on_gpu:
            return None
        first, second = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        return first, second


class ReadingBound:
    """Says once in a run what its loader is short of. `workers`: loader processes; `cores`: those they may use."""

    def __init__(self, workers: int, cores: int) -> None:
        self._workers, self._cores = workers, cores
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._is_first = True

    def add(self, images: int, seconds: float, waited: float) -> str | None:
        """After a part of the training of this process; its first one, in which the loader starts, does not count."""
        if self._is_first:
            self._is_first = False
            return None
        before = self._seconds
        self._images, self._seconds, self._waited = self._images + images, before + seconds, self._waited + waited
        if not before < _ENOUGH <= self._seconds:
            return None
        return reading_bound(self._images, self._seconds, self._waited, self._workers, self._cores)


def reading_bound(images: int, seconds: float, waited: float, workers: int, cores: int) -> str | None:
    """A line on what would make a process wait less that waited so many of the `seconds` for `images` images.

    None where it hardly did. `workers`: its loader processes; `cores`: those that they may use.
    """
    if waited < _NOTICED * seconds or images == 0:
        return None
    loaded, trained = images / seconds, images / max(seconds - waited, 1e-9)
    needed = math.ceil(max(workers, 1) * trained / loaded)
    few = ("reading in the main process gives", "1 loader process gives")
    readers = few[workers] if workers < 2 else f"{workers} loader processes give"
    if workers < cores:
        remedy = f"-j {min(needed, cores)} would do" if needed <= cores else f"-j {cores} would help"
    else:
        remedy = f"all {cores} cores read; packed images (convmixer pack) or --cache ram cost less"
    return f"bound by reading: {readers} {loaded:,.0f} images per second, the network takes {trained:,.0f}; {remedy}"
