"""What is told on stderr: nothing by the library alone, text by a command, and less, more or JSON where asked for."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Command, Train
from tests.project import SRC


@pytest.mark.slow
def test_the_library_alone_is_silent(tmp_path: Path) -> None:
    code = (
        "import convmixer\n"
        "convmixer.train(arch='convmixer_8_1', kernel_size=3, patch_size=2, epochs=1, train_num_samples=64,"
        " num_parallel_workers=0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quiet_keeps_warnings_and_results(train: Train, convmixer: Command, own_toy: Path, here: Path) -> None:
    (own_toy / "train/red/bad.png").write_bytes(b"no image")
    run = train("-q", "--max_bad_fraction=0.5", folder=own_toy, epochs=1)
    (line,) = run.done.err.splitlines()
    assert line.startswith("skipped ")
    assert run.done.out.startswith("best: ")
    assert convmixer("infer", own_toy / "val/red", f"--checkpoint={run.best}", "--quiet").err == ""


def test_verbose_tells_where_options_come_from(train: Train) -> None:
    run = train("-v", epochs=1)
    assert "option epochs: 1 (command line)" in run.done.err
    assert "option seed: 0 (default)" in run.done.err


def test_json_lines(train: Train) -> None:
    run = train("--log_json", epochs=1)
    logged = [json.loads(line) for line in run.done.err.splitlines()]
    assert {"time", "level", "module", "message"} == logged[0].keys()
    assert any(entry["message"].startswith("run ") and entry["level"] == "info" for entry in logged)
    assert {entry["module"].partition(".")[0] for entry in logged} == {"convmixer"}


def test_an_error_is_a_line_of_json_too(convmixer: Command, here: Path) -> None:
    done = convmixer("infer", "nowhere.png", "--checkpoint=w", "--log_json")
    (line,) = done.err.splitlines()
    logged = json.loads(line)
    assert (done.code, logged["level"]) == (2, "error")
    assert "nowhere.png" in logged["message"]


def test_a_command_leaves_the_logger_as_it_was(convmixer: Command, here: Path) -> None:
    logger = logging.getLogger("convmixer")
    before = (list(logger.handlers), logger.level, logger.propagate)
    convmixer("infer", "nowhere.png", "--checkpoint=w", "-q", "--log_json")
    assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_a_library_that_sets_up_the_root_logger_doubles_nothing(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(lines)])
    assert "run " in train(epochs=1).done.err
    assert lines.getvalue() == ""


@pytest.mark.parametrize("words", [("-q",), ("--quiet",), ("--quiet=true",), ("--quiet", "true")])
def test_short_switches(convmixer: Command, here: Path, words: tuple[str, ...]) -> None:
    done = convmixer("infer", *words, "nowhere.png", "--checkpoint=w")
    assert "nowhere.png" in done.error
