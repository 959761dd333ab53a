"""Timing on a GPU, on a stand-in whose host and device have clocks of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from convmixer.kernels import timing


class Device:
    """Launches take `host` ms each on the host; what they do takes the device the time given, in the order queued."""

    def __init__(self) -> None:
        self.host = self.idle = 0.0  # the host's clock, and when the device will have done all that is queued
        self.sleeps: list[float] = []

    def launch(self, took: float, host: float) -> None:
        self.host += host
        self.idle = max(self.idle, self.host) + took

    def sleep(self, cycles: int) -> None:
        self.sleeps.append(cycles / timing._CYCLES_PER_MS)
        self.idle = max(self.idle, self.host) + self.sleeps[-1]

    def wait(self) -> None:
        self.host = max(self.host, self.idle)

    def event(self, enable_timing: bool) -> Any:
        device = self

        class Event:
            def record(self) -> None:
                self.at = max(device.idle, device.host)

            def query(self) -> bool:
                return device.host >= self.at

            def synchronize(self) -> None:
                device.wait()

            def elapsed_time(self, end: Any) -> float:
                return float(end.at - self.at)

        return Event()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "_sleep", device.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", device.wait)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(time, "perf_counter", lambda: device.host / 1e3)
    return device


def times(*calls: Callable[[], None]) -> list[float]:
    return timing.milliseconds(calls, device=torch.device("cuda"))


def test_launches_that_take_longer_than_the_work_are_not_timed(device: Device) -> None:
    """0.02 and 0.5 ms of work, each launched in 0.1 ms."""
    found = times(lambda: device.launch(0.02, host=0.1), lambda: device.launch(0.5, host=0.1))
    assert found == pytest.approx([0.02, 0.5])


def test_a_sleep_that_was_too_short_is_doubled(device: Device) -> None:
    """The host is quick while warming up and slow from then on: 10 launches of 2 ms outlast the first sleep."""
    hosts = iter([0.0, 0.0])
    found = times(lambda: device.launch(0.3, host=next(hosts, 2.0)))
    assert found == pytest.approx([0.3])
    assert device.sleeps[:6] == pytest.approx([1, 2, 4, 8, 16, 32])
    assert device.sleeps[6:] == pytest.approx([32] * 4)


def test_a_call_that_waits_for_the_device_ends(device: Device) -> None:
    def call() -> None:
        device.launch(0.3, host=0.1)
        device.wait()

    assert times(call) == pytest.approx([0.4], abs=0.05)
