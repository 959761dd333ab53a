"""The timing of passes, on a stand-in of a GPU's queue: the host's time must not be in it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from convmixer.kernels import timing


class Queue:
    """A device with a clock of its own, which runs what the host queues in order; the host takes time to queue."""

    def __init__(self) -> None:
        self.host = self.free = 0.0  # seconds: the host's clock, and when the device is done with its queue

    def work(self, seconds: float, host: float) -> None:
        self.host += host
        self.free = max(self.free, self.host) + seconds

    def event(self, enable_timing: bool) -> Any:
        queue = self

        class Event:
            at = 0.0

            def record(self) -> None:
                self.at = max(queue.free, queue.host)

            def query(self) -> bool:
                return queue.host >= self.at

            def synchronize(self) -> None:
                queue.host = max(queue.host, self.at)

            def elapsed_time(self, end: Any) -> float:
                return (end.at - self.at) * 1e3

        return Event()


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    found = Queue()
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: found.work(cycles / 2e9, 0.0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return found


@pytest.mark.parametrize("host", [1e-5, 1e-3])
def test_the_hosts_time_is_not_in_it(queue: Queue, host: float) -> None:
    """Two passes of 20 and 50 us that take 10 us or 1 ms to start; in the second case the first sleep is too short."""
    calls = [lambda: queue.work(20e-6, host), lambda: queue.work(50e-6, host)]
    found = timing.milliseconds(calls, repeats=3, device=torch.device("cuda"))
    assert found == pytest.approx([0.02, 0.05])


def test_a_host_that_is_slower_than_any_sleep_ends(queue: Queue) -> None:
    (found,) = timing.milliseconds([lambda: queue.work(1e-3, 0.5)], repeats=1, device=torch.device("cuda"))
    assert found > 400
