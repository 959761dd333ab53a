"""trackio on this machine, read by its own storage."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.training.logging.loggers.conftest import NAME, LogRun

trackio = pytest.importorskip("trackio", reason="needs the extra trackio")

from trackio.sqlite_storage import SQLiteStorage


def test_what_is_written_and_resumed(here: Path, log_run: LogRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("trackio.sqlite_storage", "trackio.utils", "trackio"):
        monkeypatch.setattr(f"{module}.TRACKIO_DIR", here / "trackio")
    log_run("trackio")
    log_run("trackio", resumed=True)
    (run,) = trackio.Api().runs("convmixer")
    assert run.name == NAME
    assert run.config | {"batch_size": 8, "beta": [0.9, 0.999]} == run.config
    rows = SQLiteStorage.get_logs("convmixer", NAME)
    losses = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert losses == [(1, 1.0), (2, 0.5), (3, 0.25), (3, 0.375)]
    assert [row["step"] for row in rows if "eval/Top1-Acc" in row] == [3, 3]
    assert [row["step"] for row in rows if "input" in row] == [0]
