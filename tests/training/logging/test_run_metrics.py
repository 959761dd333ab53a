"""The metrics of a run: what its loggers are given, and what becomes of one that fails."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import COUNTS, ToyOptions

import convmixer
from convmixer.errors import UserError
from convmixer.terminal import logs
from convmixer.training.logging import metric_logger
from convmixer.training.logging.metric_logger import LoggedRun, create_loggers
from convmixer.training.logging.run_metrics import RunMetrics

PICTURE = np.zeros((2, 2, 3), np.uint8)


class Recording:
    """A logger that remembers what it is given, prints as libraries do, and fails in one of its methods."""

    def __init__(self, fails_in: str | None = None, error: Exception | None = None) -> None:
        self.fails_in, self.error = fails_in, error or ValueError("no more\nat line 3 of a library")
        self.calls: list[object] = []

    def open(self, run: LoggedRun) -> str | None:
        self._called("open", run.name, run.resumed_at)
        return "somewhere"

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._called("write", step, dict(values))

    def picture(self, name: str, image: np.ndarray) -> None:
        self._called("picture", name)

    def close(self, *, failed: bool) -> None:
        self._called("close", failed)

    def _called(self, method: str, *words: object) -> None:
        print(f"{method} of a library")
        if method == self.fails_in:
            raise self.error
        self.calls.append((method, *words))


def a_run(folder: Path) -> LoggedRun:
    return LoggedRun("26-11-26_120000_convmixer_8_2", folder, {"arch": "convmixer_8_2", "beta": [0.9, 0.999]})


def log_a_little(folder: Path, one: Recording) -> list[int]:
    """The steps in metrics.jsonl after a short run with this logger and a whole one beside it."""
    beside = Recording()
    metrics = RunMetrics(a_run(folder), {"service": one, "beside": beside})
    metrics.write("train", 1, {"loss": 0.5, "skipped": False, "note": "text"})
    metrics.picture("input", PICTURE)
    metrics.write("train", 2, {"loss": 0.25})
    metrics.close(failed=True)
    assert beside.calls == [
        ("open", "26-11-26_120000_convmixer_8_2", None),
        ("write", 1, {"train/loss": 0.5, "train/skipped": False}),
        ("picture", "input"),
        ("write", 2, {"train/loss": 0.25}),
        ("close", True),
    ]
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("fails_in", "calls"), [("open", 0), ("write", 1), ("picture", 2), ("close", 4)])
def test_one_that_fails_is_dropped_with_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails_in: str, calls: int
) -> None:
    one = Recording(fails_in)
    assert log_a_little(tmp_path, one) == [1, 2]
    assert len(one.calls) == calls
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line for line in captured.err.splitlines() if not line.endswith("somewhere")] == [
        "service: no more: no more is logged to it; the run goes on"
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(28, "No space left on device"), "No space left on device"), (TimeoutError(), "TimeoutError")],
)
def test_why_is_said_in_a_few_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    log_a_little(tmp_path, Recording("write", error))
    assert f"\nservice: {words}: no more is logged to it; the run goes on\n" in capsys.readouterr().err


def test_what_libraries_print_is_told_as_details(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.ROOT.setLevel(logging.DEBUG)
    RunMetrics(a_run(tmp_path), {"service": Recording()}).close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "service: somewhere",
        "service: open of a library",
        "service: close of a library",
    ]


def test_the_name_that_a_service_knows_a_run_by_is_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert run.remote_id("wandb") is None
    run.keep_remote_id("wandb", "abc")
    assert (run.remote_id("wandb"), run.remote_id("mlflow")) == ("abc", None)
    (tmp_path / "wandb_run_id.txt").write_bytes(b"\xff\xfe")
    assert run.remote_id("wandb") is None


def test_a_package_that_does_not_fit_to_the_others_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: str) -> None:
        raise TypeError("Descriptors cannot be created directly.\nIf this call came from ...")

    monkeypatch.setattr(metric_logger, "module_of", broken)
    with pytest.raises(UserError) as caught:
        create_loggers(["wandb"])
    assert str(caught.value) == "--log_to: wandb cannot be used: Descriptors cannot be created directly."


ONE_MORE = '''"""Steps as CSV."""

from pathlib import Path


class Logger:
    """A file in the run's summary."""

    def open(self, run):
        self.path = Path(run.folder, "steps.csv")
        return str(self.path)

    def write(self, step, values):
        with self.path.open("a") as file:
            file.write(",".join([str(step), *sorted(values)]) + "\\n")

    def picture(self, name, image):
        pass

    def close(self, *, failed):
        pass
'''


@pytest.mark.slow
def test_one_file_adds_a_logger(here: Path, toy: Path, toy_options: ToyOptions) -> None:
    shutil.copytree(Path(convmixer.__file__).parent, here / "src/convmixer")
    (here / "src/convmixer/training/logging/loggers/csv_steps.py").write_text(ONE_MORE)
    done = subprocess.run(
        [sys.executable, "-m", "convmixer", "train", *toy_options(toy, epochs=1), "--log_to=csv_steps"],
        env={"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (summary,) = (here / "runs/summary").iterdir()
    assert f"csv_steps: runs/summary/{summary.name}/steps.csv\n" in done.stderr
    rows = (summary / "steps.csv").read_text().splitlines()
    assert len(rows) == sum(COUNTS["train"]) // 8 + 1  # a row per step, and the evaluation
    names = "Loss Top1-Acc Top5-Acc balanced_accuracy calibration_error epoch macro_f1 unreadable"
    assert rows[-1] == ",".join(["3", *(f"eval/{name}" for name in names.split())])
    assert not list(summary.glob("events.*"))
