"""metrics.jsonl and the events beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorboardX
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convmixer.train import journal
from convmixer.train.journal import Journal


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_line_is_there_at_once(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.write("train", 1, {"loss": 0.5, "note": "text"})
    assert lines(tmp_path) == [{"kind": "train", "step": 1, "loss": 0.5, "note": "text"}]
    log.close()


def test_what_is_not_finite_is_written_as_it_is(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.write("train", 1, {"loss": float("nan"), "grad_norm": float("inf")})
    log.close()
    entry = lines(tmp_path)[0]
    assert np.isnan(entry["loss"])
    assert entry["grad_norm"] == float("inf")


def test_a_resumed_run_cuts_what_it_will_write_again(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.write("train", 1, {"loss": 1.0})
    kept = log.bytes
    log.write("train", 2, {"loss": 2.0})
    log.close()
    again = Journal(tmp_path, keep_bytes=kept, purge_step=1)
    assert again.bytes == kept
    again.write("train", 2, {"loss": 3.0})
    again.close()
    assert [entry["loss"] for entry in lines(tmp_path)] == [1.0, 3.0]


def test_a_file_that_is_gone_starts_anew(tmp_path: Path) -> None:
    log = Journal(tmp_path, keep_bytes=1000, purge_step=5)
    log.write("eval", 6, {"Loss": 1.0})
    log.close()
    assert [entry["step"] for entry in lines(tmp_path)] == [6]


def test_pictures_can_be_seen(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    log.picture("input", np.full((4, 6, 3), 200, np.uint8))
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("input")
    assert (image.width, image.height) == (6, 4)


def test_without_events_the_local_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> tensorboardX.SummaryWriter:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(journal, "SummaryWriter", refuse)
    log = Journal(tmp_path)
    log.write("train", 1, {"loss": 1.0})
    log.picture("input", np.zeros((2, 2, 3), np.uint8))
    log.close()
    assert len(lines(tmp_path)) == 1
    assert capsys.readouterr().err == f"no TensorBoard events: {tmp_path}: Permission denied\n"
