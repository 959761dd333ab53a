"""Whole runs by the optimizers of the extra: they learn; the average of schedule_free is what a run leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Command, Run, ToyOptions, Train
from tests.reliability.conftest import assert_equal, newest

from convmixer.model import create_model
from convmixer.training.optimizer import parameter_groups
from convmixer.weights.folder import file_of_folder

NAMES = ["lion", "lamb", "muon", "schedule_free"]


# 1,438 images four times, in a second. Chance is 0.1; what one run gave, in this order: 0.89, 0.80, 0.77, 0.98.
@pytest.mark.parametrize(
    ("name", "words", "least"),
    [
        ("lion", ["--base_lr=0.01"], 0.75),
        ("lamb", ["--base_lr=0.01"], 0.65),
        ("muon", ["--base_lr=0.01"], 0.6),
        ("schedule_free", ["--base_lr=0.03", "--lr_scheduler=constant_lr", "--warmup_length=1"], 0.75),
    ],
)
def test_each_learns_the_digits(name: str, words: list[str], least: float, convmixer: Command, here: Path) -> None:
    done = convmixer("train", "--config=digits", "--arch=convmixer_16_2", f"--optimizer={name}", *words, "--epochs=4")
    assert done.code == 0, done.err
    (evaluation,) = Run.below(here, done).metrics("eval")
    assert evaluation["Top1-Acc"] >= least


@pytest.mark.parametrize("name", NAMES)
def test_steps_that_a_loss_scale_skips_are_not_made(name: str, train: Train) -> None:
    """The scale starts far too high: the first steps are skipped and halve it, and nothing moves."""
    scaled = ["--amp_level=O1", "--amp_dtype=fp16", "--is_dynamic_loss_scale", "--loss_scale=1e38"]
    run = train(f"--optimizer={name}", *scaled, "--ckpt_save_every_step=1")
    skipped = [entry["skipped"] for entry in run.metrics("train")]
    assert skipped[:2] == [True, True]
    first, second = (run.checkpoints / f"step_0000000{step}" for step in (1, 2))
    weights = [load_file(folder / "model.safetensors") for folder in (first, second)]
    for key, tensor in weights[0].items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(tensor, weights[1][key]), key
    state = torch.load(second / "state.pt", weights_only=True)["optimizer"]
    assert not any(state["state"].values())


@pytest.mark.parametrize("name", NAMES)
def test_only_the_head_of_a_frozen_network_moves(name: str, train: Train, toy_run: Run) -> None:
    best = toy_run.best / "best.safetensors"
    run = train(f"--optimizer={name}", f"--pretrained={best}", "--unfreeze_epoch=2", "--weight_decay=0.1")
    before, after = load_file(best), load_file(run.best / "best.safetensors")
    assert {key for key, tensor in before.items() if not torch.allclose(tensor, after[key], rtol=1e-5)} == {
        "head.weight",
        "head.bias",
    }


def averaged(checkpoint: Path, beta: float) -> dict[str, torch.Tensor]:
    """x of y = (1 - beta) z + beta x (equation 3 of https://arxiv.org/abs/2405.15682), y and z as they are saved."""
    network = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    order = [names[id(parameter)] for group in parameter_groups(network, 0.0) for parameter in group["params"]]
    model = load_file(checkpoint / "model.safetensors")
    state = torch.load(checkpoint / "state.pt", weights_only=True)["optimizer"]
    assert len(order) == len(state["state"])
    return {key: (model[key] - (1 - beta) * state["state"][i]["z"]) / beta for i, key in enumerate(order)}


def test_the_average_of_schedule_free_is_evaluated_saved_and_exported(
    train: Train, convmixer: Command, toy: Path, toy_options: ToyOptions
) -> None:
    run = train("--optimizer=schedule_free", "--lr_scheduler=constant_lr", "--beta", "0.6", "0.99")
    last = newest(run.checkpoints)
    saved, trained = load_file(last / "ema.safetensors"), load_file(last / "model.safetensors")
    for key, tensor in averaged(last, 0.6).items():
        torch.testing.assert_close(saved[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
        assert not torch.equal(saved[key], trained[key]), key
    for key in saved.keys() - averaged(last, 0.6).keys():
        assert torch.equal(saved[key], trained[key]), key
    # What eval and export open of a checkpoint is that file, and it answers as the evaluation of the run did.
    assert file_of_folder(last, "") == last / "ema.safetensors"
    data = [word for word in toy_options(toy) if word.split("=")[0] in ("--data_url", "--num_parallel_workers")]
    done = convmixer("eval", f"--pretrained={last}", *data)
    shown = {name: run.metrics("eval")[-1][name] for name in ("Loss", "Top1-Acc", "Top5-Acc")}
    assert done.out.strip() == f"eval results: {shown}"
    best = max(entry["Top1-Acc"] for entry in run.metrics("eval"))
    done = convmixer("eval", f"--pretrained={run.best}", *data)
    assert f"'Top1-Acc': {best}," in done.out


def test_how_often_schedule_free_is_evaluated_and_saved_changes_no_bit(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    ends = []
    for folder, often in (("often", 1), ("seldom", 6)):
        roots = [f"--{kind}_root_dir={here / folder / kind}" for kind in ("ckpt", "best_ckpt", "summary")]
        options = toy_options(toy, epochs=4, eval_every=4 if often > 1 else 1, ckpt_save_every_step=often)
        done = convmixer("train", *options, *roots, "--optimizer=schedule_free")
        assert done.code == 0, done.err
        assert "schedule_free is meant for --lr_scheduler constant_lr" in done.err
        (run,) = (here / folder / "ckpt").iterdir()
        ends.append({name: load_file(newest(run) / f"{name}.safetensors") for name in ("model", "ema")})
    assert_equal(ends[0], ends[1], where="weights")


def test_two_averages_are_refused(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(toy), "--optimizer=schedule_free", "--with_ema")
    assert (done.code, list(here.iterdir())) == (2, [])
    assert done.error == "--with_ema: schedule_free keeps an average of the weights itself; leave one out"


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_told_before_anything_is_written(
    name: str, convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    done = convmixer("train", *toy_options(toy), f"--optimizer={name}")
    assert (done.code, done.out, list(here.iterdir())) == (2, "", [])
    assert done.error == (
        f"optimizer: {name} needs pytorch_optimizer, which is not installed: pip install 'convmixer[torch]'"
    )


@pytest.mark.parametrize("other", ["muon", "schedule_free", "sgd"])
def test_a_run_does_not_go_on_with_another_optimizer(
    other: str, train: Train, convmixer: Command, toy: Path, toy_options: ToyOptions
) -> None:
    train("--ckpt_save_every_step=2")
    options = [*toy_options(toy, epochs=3), f"--optimizer={other}", "--resume=auto"]
    assert f"optimizer: adamw then, {other} now" in convmixer("train", *options).error
    done = convmixer("train", *options, "--force_resume")
    assert (done.code, done.out) == (2, "")
    assert "its optimizer is another one" in done.error
