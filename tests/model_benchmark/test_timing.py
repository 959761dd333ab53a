"""Times of calls whose length is known, in turns."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from convmixer.errors import UserError
from convmixer.model_benchmark.timing import ROUNDS, Times, measure


class Clock:
    """A clock that only goes on where a call or a rest takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0.0, list[str]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def call(self, name: str, seconds: float) -> None:
        self.order.append(name)
        self.now += seconds


def test_each_has_its_own_times_and_all_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    fast, slow = measure([lambda: clock.call("fast", 0.25), lambda: clock.call("slow", 2.0)], 8, seconds=10.0)
    assert isinstance(fast, Times)
    assert isinstance(slow, Times)
    # A tenth of ten seconds per round: four calls of the one, and of the other one, which is longer.
    assert fast.seconds == pytest.approx((0.25,) * 4 * ROUNDS)
    assert slow.seconds == pytest.approx((2.0,) * ROUNDS)
    assert [fast.rate, slow.rate] == pytest.approx([32, 4])
    turns = [name for name, _ in itertools.groupby(clock.order)]
    assert turns == ["fast", "slow"] * (ROUNDS + 1)


def test_one_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, left = Clock(monkeypatch), [3]

    def failing() -> None:
        clock.call("failing", 1.0)
        left[0] -= 1
        if left[0] == 0:
            raise UserError("no memory left")

    failed, times = measure([failing, lambda: clock.call("well", 1.0)], 1, seconds=10.0)
    assert str(failed) == "no memory left"
    assert isinstance(times, Times)
    assert len(times.seconds) == ROUNDS
    assert clock.order.count("failing") == 3


def test_percentiles() -> None:
    seconds = np.random.default_rng(0).permutation(np.arange(1, 102)) / 1000
    times = Times(1, tuple(seconds.tolist()))
    assert times.milliseconds(50) == pytest.approx(51)
    assert times.milliseconds(99) == pytest.approx(100)
