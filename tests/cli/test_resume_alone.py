"""`--resume` without anything else: the run's own options hold; and `convmixer runs`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from tests.conftest import Command, Run, ToyOptions


@pytest.fixture
def stopped(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> Run:
    """A run of two epochs as it was after the first, beside a run on the digits that is newer."""
    options = toy_options(toy, epochs=2, seed=3)
    done = convmixer("train", *options, "--model_postfix=mine", "--with_ema", "--mixup=0.3")
    assert done.code == 0, done.err
    run = Run.below(here, done)
    shutil.rmtree(max(run.checkpoints.iterdir()))
    return run


def last_of(run: Run) -> bytes:
    return (max(run.checkpoints.iterdir()) / "ema.safetensors").read_bytes()


@pytest.mark.parametrize("how", ["auto", "checkpoints", "summary", "best", "name", "checkpoint"])
def test_the_runs_own_options_hold(stopped: Run, convmixer: Command, toy: Path, how: str) -> None:
    before = yaml.safe_load((stopped.summary / "config.yaml").read_text())
    places = {
        "auto": "auto",
        "checkpoints": stopped.checkpoints,
        "summary": stopped.summary,
        "best": stopped.best,
        "name": stopped.name,
        "checkpoint": max(stopped.checkpoints.iterdir()),
    }
    done = convmixer("train", "--resume", places[how])
    assert done.code == 0, done.err
    assert "--resume: the options of " in done.err
    assert "step_00000003: step 3, weights, optimizer, averaged weights" in done.err
    assert max(stopped.checkpoints.iterdir()).name == "step_00000006"
    after = yaml.safe_load((stopped.summary / "config.yaml").read_text())
    assert {**after, "resume": None} == {**before, "resume": None}
    # Where they came from stays known, as do the command and whether the recipe was named.
    assert "mixup: 0.3  # command line" in (stopped.summary / "config.yaml").read_text()
    assert "exif: true  # " in (stopped.summary / "config.yaml").read_text()
    record = json.loads((stopped.summary / "run.json").read_text())
    assert "--model_postfix=mine" in record["command"]
    assert record["resumed_with"] == f"convmixer train --resume {places[how]}"


def test_it_ends_to_the_bit_as_the_run_that_was_not_stopped(
    stopped: Run, convmixer: Command, toy: Path, toy_options: ToyOptions
) -> None:
    convmixer("train", "--resume", "auto")
    ended = last_of(stopped)
    shutil.rmtree("runs")
    options = toy_options(toy, epochs=2, seed=3)
    done = convmixer("train", *options, "--model_postfix=mine", "--with_ema", "--mixup=0.3")
    assert ended == last_of(Run.below(Path(), done))


def test_what_is_given_holds_over_them(stopped: Run, convmixer: Command) -> None:
    done = convmixer("train", "--resume=auto", "--print_loss_every=2", "--mixup=0.2")
    assert "mixup: 0.3 then, 0.2 now" in done.error
    done = convmixer("train", "--resume=auto", "--print_loss_every=2")
    assert done.code == 0, done.err


def test_auto_takes_the_run_on_the_data_that_are_named(stopped: Run, convmixer: Command, toy: Path) -> None:
    shutil.copytree(toy, "other")
    done = convmixer("train", "other", "--resume=auto", "--epochs=1", "--execution=eager", "-j0")
    assert "no run *_convmixer_128_6 with a checkpoint" in done.err
    done = convmixer("train", str(toy), "--resume=auto")
    assert f"{stopped.name}/step_00000003: step 3" in done.err


def test_without_a_run_auto_starts_one(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(toy, epochs=1), "--resume=auto")
    assert done.code == 0, done.err
    assert "starting a new one" in done.err


def test_without_its_summary_the_command_line_has_to_say_all(stopped: Run, convmixer: Command) -> None:
    shutil.rmtree(stopped.summary)
    done = convmixer("train", "--resume", stopped.checkpoints)
    assert done.code == 2
    assert "its config.yaml is in no summary beside it" in done.err


def test_runs_are_listed_with_their_scores(stopped: Run, convmixer: Command) -> None:
    done = convmixer("runs", "--json=runs.json")
    assert done.code == 0, done.err
    head, line = done.out.splitlines()
    assert head.split() == ["run", "top-1", "state", "data"]
    best = max(entry["Top1-Acc"] for entry in stopped.metrics("eval"))
    assert line.split()[:3] == [stopped.name, f"{best:.4f}", "done"]
    (listed,) = json.loads(Path("runs.json").read_text())
    assert (listed["name"], listed["epochs"], listed["top1"]) == (stopped.name, 2, best)


def test_a_record_that_was_cut_short_is_listed(stopped: Run, convmixer: Command) -> None:
    path = stopped.summary / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    (stopped.summary.parent / "notes").mkdir()
    assert "at 0.667 of 2 epochs" in convmixer("runs").out


def test_no_runs(convmixer: Command, here: Path) -> None:
    assert convmixer("runs").error.startswith("--summary_root_dir: there is no folder runs/summary")
