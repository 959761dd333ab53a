"""metrics.jsonl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import file_size_limit

from convmixer.training.logging.metrics_file import MetricsFile


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_line_is_there_at_once(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.write("train", 1, {"loss": 0.5, "note": "text"})
    assert lines(tmp_path) == [{"kind": "train", "step": 1, "loss": 0.5, "note": "text"}]
    log.close()


def test_what_is_not_finite_is_written_as_it_is(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.write("train", 1, {"loss": float("nan"), "grad_norm": float("inf")})
    log.close()
    entry = lines(tmp_path)[0]
    assert np.isnan(entry["loss"])
    assert entry["grad_norm"] == float("inf")


def test_a_resumed_run_cuts_what_it_will_write_again(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.write("train", 1, {"loss": 1.0})
    kept = log.size
    log.write("train", 2, {"loss": 2.0})
    log.close()
    again = MetricsFile(tmp_path, keep_bytes=kept)
    assert again.size == kept
    again.write("train", 2, {"loss": 3.0})
    again.close()
    assert [entry["loss"] for entry in lines(tmp_path)] == [1.0, 3.0]


def test_a_file_that_is_gone_starts_anew(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path, keep_bytes=1000)
    log.write("eval", 6, {"Loss": 1.0})
    log.close()
    assert [entry["step"] for entry in lines(tmp_path)] == [6]


def test_lines_that_the_disk_refuses_wait_and_are_written_when_it_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsFile(tmp_path)
    log.write("train", 1, {"loss": 1.0})
    lengths = [log.size]
    with file_size_limit(log.size + 60):
        # One line more fits; of the next the system takes a part, which must not stay.
        for step in range(2, 50):
            log.write("train", step, {"loss": 1.0})
            lengths.append(log.size)
        assert [entry["step"] for entry in lines(tmp_path)] == [1, 2]
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/metrics.jsonl: File too large: new lines wait in memory until they can be written; the run goes on"
    ]
    log.write("train", 50, {"loss": 1.0})
    log.close()
    assert [entry["step"] for entry in lines(tmp_path)] == list(range(1, 51))
    # What a checkpoint was told in the meantime is where its line ends.
    content = (tmp_path / "metrics.jsonl").read_bytes()
    assert [content[:length].count(b"\n") for length in lengths] == list(range(1, 50))
    assert capsys.readouterr().err == ""


def test_a_disk_without_room_from_the_start(
    small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_disk("4k")
    (folder / "full").write_bytes(bytes(4096))
    log = MetricsFile(folder)
    log.write("train", 1, {"loss": 1.0})
    log.write("train", 2, {"loss": 1.0})
    log.close()
    warning, lost = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"{folder}/metrics.jsonl: No space left on device: new lines wait in memory")
    assert lost == f"{folder}/metrics.jsonl: the last 2 lines could not be written and are lost"


def test_the_half_of_a_line_that_a_loss_of_power_left_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "tra')
    log = MetricsFile(tmp_path, keep_bytes=500)
    log.write("train", 2, {"loss": 1.0})
    log.close()
    assert [entry["step"] for entry in lines(tmp_path)] == [1, 2]


def test_a_record_that_is_deleted_meanwhile_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    log = MetricsFile(folder)
    log.write("train", 1, {"loss": 1.0})
    shutil.rmtree(folder)
    log.write("train", 2, {"loss": 1.0})
    log.close()
    assert [entry["step"] for entry in lines(folder)] == [2]
    assert log.size == (folder / "metrics.jsonl").stat().st_size
