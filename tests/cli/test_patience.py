"""A run ends after so many evaluations without a better top-1, for good, unless it is given more patience."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.conftest import Command, Run, Train
from tests.reliability.test_exact_resume import rewrite_manifest

# No step of this run changes an answer: after the first evaluation, none is better.
STILL = {"epochs": 6, "base_lr": 1e-12, "warmup_lr": 0}


def evaluated(run: Run) -> list[float]:
    return [entry["epoch"] for entry in run.metrics("eval")]


def test_a_run_that_gets_no_better_ends_as_done(train: Train, convmixer: Command) -> None:
    run = train("--patience=2", **STILL)
    assert evaluated(run) == [1, 2, 3]
    (end,) = run.metrics("end")
    assert end == {"kind": "end", "step": 9, "epoch": 3.0, "reason": "patience", "evaluations_since_best": 2}
    assert "epoch 3 of 6: the run ends early, evaluations without a better top-1: 2 (--patience 2;" in run.done.err
    assert f"best: runs/best/{run.name}/best.safetensors" in run.done.out
    assert "step_00000009" in run.done.out
    assert "ended at 3 of 6 epochs" in convmixer("runs").out


def test_without_patience_it_goes_on(train: Train) -> None:
    run = train(**STILL)
    assert evaluated(run) == [1, 2, 3, 4, 5, 6]
    assert run.metrics("end") == []


def test_patience_that_ends_with_the_last_epoch_is_no_early_end(train: Train, convmixer: Command) -> None:
    run = train("--patience=2", **STILL | {"epochs": 3})
    assert run.metrics("end") == []
    assert "done" in convmixer("runs").out


def test_it_counts_evaluations_and_not_epochs(train: Train) -> None:
    run = train("--patience=1", "--eval_every=2", **STILL)
    assert evaluated(run) == [2, 4]


def test_a_resumed_run_that_had_ended_trains_on_with_more_patience_only(
    train: Train, convmixer: Command, here: Path
) -> None:
    run = train("--patience=2", **STILL)
    again = convmixer("train", "--resume=auto")
    assert again.code == 0, again.err
    assert "the run ends early, evaluations without a better top-1: 2" in again.err
    assert evaluated(run) == [1, 2, 3]
    assert len(run.metrics("end")) == 1
    more = convmixer("train", "--resume=auto", "--patience=4")
    assert more.code == 0, more.err
    assert evaluated(run) == [1, 2, 3, 4, 5]
    assert [entry["evaluations_since_best"] for entry in run.metrics("end")] == [4]
    off = convmixer("train", "--resume=auto", "--patience=0")
    assert off.code == 0, off.err
    assert evaluated(run) == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_without_the_counter_begins_to_count(train: Train, convmixer: Command) -> None:
    run = train("--patience=2", **STILL)
    folder = run.checkpoints / "step_00000009"
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state.pop("evaluations_since_best") == 2
    torch.save(state, folder / "state.pt")
    rewrite_manifest(folder)
    done = convmixer("train", "--resume=auto")
    assert done.code == 0, done.err
    assert evaluated(run) == [1, 2, 3, 4, 5]
