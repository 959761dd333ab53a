"""When a run prints, evaluates and saves, written out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from convmixer.config.schema import Config
from convmixer.training.intervals import Intervals

STEPS = range(1, 13)


def steps(question: Callable[[int], bool]) -> list[int]:
    """The steps at which the answer is yes."""
    return [step for step in STEPS if question(step)]


def test_four_epochs_of_three_steps() -> None:
    intervals = Intervals(
        Config(epochs=4, eval_every=3, print_loss_every=5, summary_loss_collect_freq=4), steps_per_epoch=3
    )
    assert intervals.last_step == 12
    assert steps(intervals.ends_epoch) == [3, 6, 9, 12]
    # The last step is printed, recorded and evaluated whatever the intervals are.
    assert steps(intervals.prints) == [5, 10, 12]
    assert steps(intervals.summarises) == [4, 8, 12]
    assert steps(intervals.evaluates) == [9, 12]
    assert steps(intervals.saves) == [3, 6, 9, 12]


def test_saves_by_steps_come_beside_those_of_epochs() -> None:
    intervals = Intervals(Config(epochs=2, ckpt_save_every_step=4), steps_per_epoch=6)
    assert steps(intervals.saves) == [4, 6, 8, 12]


def test_saves_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals = Intervals(Config(epochs=1, ckpt_save_every_sec=30), steps_per_epoch=100)
    start = now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert not intervals.saves(1)
    now = start + 29
    assert not intervals.saves(2)
    now = start + 30
    assert intervals.saves(3)
    # Until it is done, it is due.
    assert intervals.saves(4)
    intervals.saved()
    assert not intervals.saves(5)
    now = start + 60
    assert intervals.saves(6)
