"""TensorBoard's events, read by TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import file_size_limit
from tests.training.logging.loggers.conftest import LogRun

from convmixer.training.logging.loggers.tensorboard import Logger
from convmixer.training.logging.metric_logger import LoggedRun
from convmixer.training.logging.run_metrics import RunMetrics


def events_in(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_curves_and_pictures(here: Path, log_run: LogRun) -> None:
    log_run("tensorboard")
    events = events_in(here / "summary")
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("eval/Top1-Acc")] == [(3, 0.75)]
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/skipped", "eval/Top1-Acc"}
    (image,) = events.Images("input")
    assert (image.width, image.height) == (6, 4)


def test_a_resumed_run_hides_the_steps_that_it_makes_again(here: Path, log_run: LogRun) -> None:
    log_run("tensorboard")
    (first,) = (here / "summary").glob("events.*")
    first.rename(first.with_name("events.out.tfevents.1"))  # both are of one second and one process
    log_run("tensorboard", resumed=True)
    scalars = events_in(here / "summary").Scalars("train/loss")
    assert [(event.step, event.value) for event in scalars] == [(1, 1.0), (2, 0.5), (3, 0.375)]


def test_events_end_where_the_disk_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = RunMetrics(LoggedRun("run", tmp_path, {}), {"tensorboard": Logger()})
    metrics.write("train", 1, {"loss": 1.0})
    with file_size_limit(100):
        metrics.write("train", 2, {"loss": 1.0})
    metrics.write("train", 3, {"loss": 1.0})
    metrics.close()
    warnings = capsys.readouterr().err.splitlines()
    assert warnings[-1] == "tensorboard: File too large: no more is logged to it; the run goes on"
    assert [event.step for event in events_in(tmp_path).Scalars("train/loss")] == [1]
