"""`--unfreeze_epoch`: the head first, then all of the network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Command, Run, ToyOptions, Train
from tests.reliability.conftest import Start
from tests.reliability.test_exact_resume import EVERYTHING, SMALL, assert_same_run, resumed_at

HEAD = {"head.weight", "head.bias"}


def differing(weights: Path, checkpoint: Path) -> set[str]:
    before, after = load_file(weights), load_file(checkpoint / "model.safetensors")
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "lamb", "muon", "schedule_free"])
def test_first_the_head_then_all(optimizer: str, train: Train, weights: Path) -> None:
    words = ["--pretrained", weights, "--unfreeze_epoch=1", f"--optimizer={optimizer}", "--weight_decay=0.1"]
    run = train(*words, ckpt_save_every_step=1)
    at = [run.checkpoints / f"step_{step:08d}" for step in range(1, 7)]
    for checkpoint in at[:3]:
        assert differing(weights, checkpoint) == HEAD
    assert differing(weights, at[3]) == load_file(weights).keys()
    # Neither moments nor counts of steps of what is frozen: at the border it starts as in a new run.
    saved = torch.load(at[2] / "state.pt", weights_only=True)["optimizer"]
    of_head = [i for group in saved["param_groups"] for i in group["params"] if group["lr"] > 0 or i in saved["state"]]
    moved = {i for i, state in saved["state"].items() if any(torch.is_tensor(v) and v.any() for v in state.values())}
    assert len(moved) == 2
    assert moved <= set(of_head)
    steps = [group["step"] for group in saved["param_groups"] if "step" in group]
    assert not steps or set(steps) == {3}


def test_to_the_end_it_trains_the_head_by_epochs(train: Train, weights: Path) -> None:
    run = train("--pretrained", weights, "--unfreeze_epoch=2", "--with_ema")
    assert differing(weights, run.checkpoints / "step_00000006") == HEAD
    assert len(run.metrics("train")) == 6
    best, before = load_file(run.best / "best.safetensors"), load_file(weights)
    assert {name for name in before if not torch.equal(before[name], best[name])} == HEAD


@pytest.mark.parametrize("words", [["--drop_path=0.3", "--layer_decay=0.7"], ["--optimizer=muon"], ["--amp_level=O2"]])
def test_resume_is_exact_before_at_and_after_the_border(
    words: list[str], train: Train, weights: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    words = [f"--pretrained={weights}", "--unfreeze_epoch=1", *words, *EVERYTHING]
    run = train(*words, **SMALL)
    options = [*toy_options(toy, **SMALL), *words]
    for step in (3, 5, 6, 7, 10):  # 6 steps per epoch
        assert_same_run(run, resumed_at(run, step, tmp_path / str(step), options))


def test_it_belongs_to_the_run(
    train: Train, convmixer: Command, weights: Path, toy: Path, toy_options: ToyOptions
) -> None:
    run = train("--pretrained", weights, "--unfreeze_epoch=1")
    done = convmixer("train", *toy_options(toy), "--unfreeze_epoch=0", "--resume", run.checkpoints)
    assert done.code == 2
    assert "unfreeze_epoch: 1 then, 0 now" in done.error


def test_freeze_never_unfreezes(convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(toy), "--freeze", "--unfreeze_epoch=1")
    assert (done.code, "leave it out, or --unfreeze_epoch" in done.error) == (2, True)


@pytest.mark.slow
def test_two_processes_average_the_heads_gradients(
    start: Start, here: Path, train: Train, weights: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    """With the statistics of the file, two processes of 4 images take the steps of one with 8."""
    words = ["--unfreeze_epoch=2", f"--pretrained={weights}", "--mixup=0", "--re_prob=0", "--hflip=0"]
    one = train(*words)
    shutil.move(here / "runs", tmp_path / "one")
    process = start("train", *toy_options(toy, batch_size=4, device_num=2), *words)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    two = Run.below(here, one.done)
    first = load_file(tmp_path / "one/checkpoints" / one.name / "step_00000006/model.safetensors")
    second = load_file(two.checkpoints / "step_00000006/model.safetensors")
    for name in HEAD:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-5)
