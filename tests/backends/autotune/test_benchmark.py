"""The clock: rounds, who is timed on, and the bound after which no further backend is begun."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.backends.autotune.test_fallback import Right
from tests.backends.conftest import EAGER, MakeModel, MakeWorkload, backend
from torch import nn

from convmixer.backends import registry as backends
from convmixer.backends.autotune import cache, choose
from convmixer.backends.autotune.benchmark import Timing, _interleaved
from convmixer.backends.autotune.choose import choose_backend, choose_evaluation_backend
from convmixer.backends.registry import Backend
from convmixer.backends.workload import Workload
from convmixer.model import ConvMixer

LONG = 10**9


class Clock:
    """A clock that only its steps move: `step(a, b, ...)` takes a, b, ... seconds, the last again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def step(self, name: str, *seconds: float) -> Callable[[], list[torch.Tensor]]:
        left = list(seconds)

        def run() -> list[torch.Tensor]:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return []

        return run


def timed(clock: Clock, workload: Workload, seconds: float, **steps: tuple[float, ...]) -> dict[str, float]:
    built = {name: Timing(build_seconds=0.0) for name in steps}
    found = _interleaved({name: clock.step(name, *times) for name, times in steps.items()}, built, workload, seconds)
    return {name: timing.image_seconds * workload.batch_size for name, timing in found.items()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_rounds_that_others_disturb_decide_nothing(
    clock: Clock, small_model: MakeModel, workload_of: MakeWorkload
) -> None:
    # No time at all is left after the first round; there are three all the same.
    found = timed(clock, workload_of(small_model()), 0.0, disturbed=(9.0, 1.0, 5.0), steady=(1.2,))
    assert found == pytest.approx({"disturbed": 1.0, "steady": 1.2})
    assert clock.calls == ["disturbed", "steady"] * 3


def test_time_goes_to_those_that_may_win(clock: Clock, small_model: MakeModel, workload_of: MakeWorkload) -> None:
    found = timed(clock, workload_of(small_model()), 30.0, fast=(1.0,), close=(1.4,), behind=(1.6,))
    assert found == pytest.approx({"fast": 1.0, "close": 1.4, "behind": 1.6})
    counts = {name: clock.calls.count(name) for name in found}
    assert counts["behind"] == 2
    assert counts["fast"] == counts["close"] == 9


def test_no_backend_is_begun_after_the_bound(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    built: list[str] = []

    class Second(Right):
        """Takes one to answer."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            clock.now += 1.0
            return super().forward(images)

    def slow(name: str) -> Backend:
        def build(model: ConvMixer) -> nn.Module:
            built.append(name)
            clock.now += 100.0
            return Second(model)

        return backend(name, build)

    eager = backend("eager, channels_last", Second, "eager")
    monkeypatch.setattr(backends, "BACKENDS", (eager, slow("first"), slow("second"), slow("third")))
    monkeypatch.setattr(choose, "has_bf16_units", lambda: False)
    model = small_model()
    said: list[str] = []
    choose_backend(model, workload_of(model), LONG, say=said.append)
    # Each is built twice, for the check and for the timing: the third would begin at 400 s.
    assert built == ["first", "first", "second", "second"]
    assert "execution: not measured, 300 s were over: third" in said
    # Nothing of it is kept, so that it is tried when the time allows it.
    assert sorted(cache.load(workload_of(model))) == ["eager, channels_last", "first", "second"]


def test_an_evaluation_takes_what_pays_each_time(
    small_model: MakeModel, workload_of: MakeWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying = backend("copying", lambda model: model, copies=True)
    compiled = backend("compiled", lambda model: model, "compile")
    timings = {"eager": Timing(0.2, 0.0), "copying": Timing(0.1, 5.0), "reading": Timing(0.15, 100.0)}
    tried: list[list[str]] = []

    def fake(backends: list[Backend], *_: object) -> dict[str, Timing]:
        tried.append([backend.full_name for backend in backends])
        return {backend.full_name: timings[backend.full_name] for backend in backends}

    monkeypatch.setattr(choose, "benchmark", fake)
    monkeypatch.setattr(choose, "OUTLASTS", 0.0)
    model = small_model()

    def chosen(images: int, times: int, *offered: Backend, execution: Any = "auto") -> str:
        monkeypatch.setattr(backends, "BACKENDS", (EAGER, compiled, *offered))
        monkeypatch.setattr(cache, "load", lambda workload: {})
        return choose_evaluation_backend(model, workload_of(model), images, times, execution, lambda _: None)

    # A copy costs 5 s each time and wins 0.1 s per image.
    assert chosen(49, 1000, copying) == "eager"
    assert chosen(51, 1000, copying) == "copying"
    assert tried[0] == ["eager", "copying"]
    # What reads the parameters themselves is built once: 100 s, at 0.05 s per image, here of 1,000 times 3.
    reading = backend("reading", lambda model: model)
    assert chosen(3, 1000, reading) == "reading"
    assert chosen(3, 100, reading) == "eager"
    # A name holds where there is something of its kind.
    assert chosen(10**6, 1000, copying, execution="eager") == "eager"
    assert chosen(10**6, 1000, copying, execution="compile") == "eager"
    assert chosen(1, 1, copying, execution="fused") == "copying"
    assert chosen(1, 1, execution="fused") == "eager"
