"""What a run has left, read back from wherever a user points at it, and from files that were cut short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convmixer.errors import UserError
from convmixer.runs.record import RunRecord

HEAD = "path,label,predicted,probability,label_probability\n"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `runs` of a run called `first`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for kind in ("summary", "checkpoints", "best"):
        (tmp_path / "runs" / kind / "first").mkdir(parents=True)
    summary = tmp_path / "runs/summary/first"
    (summary / "config.yaml").write_text("arch: convmixer_8_2  # command line\nepochs: 9  # default\n")
    (summary / "classes.json").write_text(json.dumps(["rose", "a, b"]))
    (tmp_path / "runs/best/first/best.safetensors").write_bytes(b"")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "path",
    [
        "first",
        "runs/summary/first",
        "runs/summary/first/config.yaml",
        "runs/best/first",
        "runs/best/first/best.safetensors",
        "runs/checkpoints/first",
        "runs/checkpoints/first/step_00000001",
    ],
)
def test_a_run_is_found_by_any_of_its_places(runs: Path, path: str) -> None:
    record = RunRecord.open(path)
    assert record.folder.samefile(runs / "summary/first")
    assert dict(record.options) == {"arch": "convmixer_8_2", "epochs": 9}
    assert record.origins == {"arch": "command line", "epochs": "default"}
    assert record.best_weights is not None
    assert record.best_weights.samefile(runs / "best/first/best.safetensors")


def test_what_is_no_run_is_refused(runs: Path) -> None:
    with pytest.raises(UserError, match="second is no run"):
        RunRecord.open("second")


def test_what_to_resume_is_a_name_here_and_a_path_elsewhere(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunRecord.open("first").checkpoints == "first"
    (runs / "elsewhere").mkdir()
    monkeypatch.chdir(runs / "elsewhere")
    assert RunRecord.open(runs / "summary/first").checkpoints == str(runs / "checkpoints/first")


def test_a_torn_last_line_of_metrics_is_left_out(runs: Path) -> None:
    whole = [{"kind": "train", "step": 1, "loss": 2.0}, {"kind": "eval", "step": 1, "Loss": 1.0}]
    text = "".join(json.dumps(line) + "\n" for line in whole)
    (runs / "summary/first/metrics.jsonl").write_text(text + '{"kind": "train", "step": 2, "lo')
    record = RunRecord.open("first")
    assert record.lines("train") == whole[:1]
    assert record.lines("eval") == whole[1:]


def test_answers_by_class_names(runs: Path) -> None:
    rows = '"a\nb.jpg",rose,"a, b",0.9,0.05\nc.jpg,"a, b",,nan,nan\n'
    (runs / "summary/first/predictions.csv").write_text(HEAD + rows)
    found = RunRecord.open("first").predictions
    assert found is not None
    assert found.paths == ("a\nb.jpg", "c.jpg")
    assert found.labels.tolist() == [0, 1]
    assert found.predicted.tolist() == [1, -1]
    assert found.probability[0] == 0.9


@pytest.mark.parametrize("row", ["c.jpg,tulip,rose,1,1", "c.jpg,,rose,1,1", "c.jpg,rose,rose,much,1", "c.jpg,rose"])
def test_answers_that_do_not_fit_the_run_are_none(runs: Path, row: str) -> None:
    (runs / "summary/first/predictions.csv").write_text(HEAD + row + "\n")
    assert RunRecord.open("first").predictions is None


def test_a_run_that_left_little_reads_as_empty(runs: Path) -> None:
    (runs / "summary/first/classes.json").write_text('["rose"')
    record = RunRecord.open("first")
    assert record.classes == ()
    assert record.metrics == []
    assert record.predictions is None
    assert dict(record.facts) == {}
