"""Learning rates at chosen steps, written out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from convmixer.config.optimizer import ScheduleOptions
from convmixer.data.batch_sampler import BatchSampler
from convmixer.errors import UserError
from convmixer.training.lr_schedule import LRSchedule


def changed(options: ScheduleOptions, **values: object) -> ScheduleOptions:
    return ScheduleOptions(**options.model_dump() | values)


def schedule_of(options: ScheduleOptions, steps_per_epoch: int = 100) -> LRSchedule:
    return LRSchedule(options, BatchSampler(count=steps_per_epoch, batch_size=1))


PLAIN = ScheduleOptions(lr_scheduler="constant_lr", warmup_lr=0.0, epochs=300)
COSINE = changed(PLAIN, lr_scheduler="cosine_lr")
ONECYCLE = changed(PLAIN, lr_scheduler="onecycle", base_lr=0.05, epochs=25)


@pytest.mark.parametrize(
    ("options", "steps", "rates"),
    [
        # 0.5 (1 + cos 45 degrees) = 0.853553
        (COSINE, 100, {0: 0.001, 7500: 0.000853553, 15000: 0.0005, 22500: 0.000146447, 30000: 0.0}),
        (
            changed(COSINE, min_lr=0.0001),
            100,
            {0: 0.001, 15000: 0.0005, 23800: 0.000101735, 23900: 0.0001, 29999: 0.0001},
        ),
        # The authors' step i of an epoch e is at e + (i + 1) / 98: 0.05 / 980 at the first one, 0 at the last.
        (
            ONECYCLE,
            98,
            {0: 0.05 / 980, 48: 0.0025, 489: 0.025, 979: 0.05, 1469: 0.02625, 1959: 0.0025, 2204: 0.00125, 2449: 0.0},
        ),
        # 2/5 and 4/5 of 7 epochs are epochs 2 and 5.
        (changed(ONECYCLE, epochs=7), 10, {9: 0.025, 19: 0.05, 49: 0.0025, 59: 0.00125}),
        (changed(ONECYCLE, epochs=1), 10, {0: 0.0125, 1: 0.025, 3: 0.05, 7: 0.0025, 8: 0.00125}),
        (changed(ONECYCLE, epochs=2), 10, {0: 0.00625, 3: 0.025, 7: 0.05, 15: 0.0025, 17: 0.00125}),
        (changed(ONECYCLE, min_lr=0.002), 98, {0: 0.002, 489: 0.025, 2204: 0.002, 2449: 0.002}),
        (changed(PLAIN, lr_scheduler="exp_lr", base_lr=0.1), 100, {0: 0.1, 50: 0.0984886, 100: 0.097, 200: 0.09409}),
        (
            changed(PLAIN, lr_scheduler="multistep_lr", base_lr=0.1, lr_gamma=0.1),
            100,
            {0: 0.1, 1500: 0.0316228, 3000: 0.01, 6000: 0.001},
        ),
        (PLAIN, 100, {0: 0.001, 17: 0.001, 29999: 0.001}),
    ],
    ids=[
        "cosine",
        "cosine-min",
        "onecycle",
        "onecycle-7",
        "onecycle-1",
        "onecycle-2",
        "onecycle-min",
        "exp",
        "multistep",
        "constant",
    ],
)
def test_rates_without_warmup(options: ScheduleOptions, steps: int, rates: dict[int, float]) -> None:
    schedule = schedule_of(options, steps)
    assert {step: schedule(step) for step in rates} == pytest.approx(rates, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        # The cosine spans the 20 epochs that are left; the others go on at their epoch.
        ("cosine_lr", {50: 0.01, 100: 0.00853553, 150: 0.005, 200: 0.00146447, 250: 0.0}),
        ("onecycle", {50: 0.0051, 99: 0.01, 199: 0.0005, 249: 0.0}),
        ("exp_lr", {50: 0.0085873, 100: 0.0073742}),
        ("multistep_lr", {50: 0.0099494, 100: 0.0098990}),
        ("constant_lr", {50: 0.01, 249: 0.01}),
    ],
)
def test_warmup_is_a_line_and_then_the_schedule(name: str, after: dict[int, float]) -> None:
    options = changed(PLAIN, lr_scheduler=name, base_lr=0.01, warmup_lr=0.001, warmup_length=5, epochs=25)
    schedule = schedule_of(options, 10)
    rates = {0: 0.001, 10: 0.0028, 25: 0.0055, 49: 0.00982} | after
    assert {step: schedule(step) for step in rates} == pytest.approx(rates, rel=1e-5, abs=1e-12)


def test_warmup_of_half_an_epoch() -> None:
    schedule = schedule_of(changed(PLAIN, base_lr=0.1, warmup_length=0.5), 10)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])


def test_min_lr_leaves_the_warmup_alone() -> None:
    # The model zoo's own recipe has a warmup_lr below its min_lr.
    schedule = schedule_of(changed(COSINE, warmup_lr=0.000007, min_lr=0.0001, warmup_length=10))
    assert schedule(0) == 0.000007
    assert schedule(29999) == 0.0001


def test_the_rate_stays_after_the_end() -> None:
    assert schedule_of(COSINE)(45000) == pytest.approx(0.0, abs=1e-12)
    assert schedule_of(ONECYCLE)(10_000) == 0.0


def test_a_warmup_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(UserError, match="warmup_length: 25 epochs of warm-up leave nothing of 25 epochs") as caught:
        schedule_of(changed(ONECYCLE, warmup_length=25))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("scaling", "batch_size", "world", "peak"),
    [("none", 24, 4, 0.001), ("linear", 24, 4, 0.0001875), ("linear", 128, 8, 0.002)],
)
def test_peak_lr(scaling: str, batch_size: int, world: int, peak: float) -> None:
    sampler = BatchSampler(10_000, batch_size, world=world)
    schedule = LRSchedule(changed(PLAIN, lr_scaling=scaling), sampler)
    assert schedule.peak == schedule(0) == pytest.approx(peak)


def test_schedules_need_no_torch() -> None:
    code = "import sys, convmixer.schedules, convmixer.training.lr_schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
