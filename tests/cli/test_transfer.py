"""`--pretrained` and `--freeze`: what is taken over from weights, and what training changes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import Command, Run, ToyOptions, Train

from convmixer.arch import architecture
from convmixer.model import ConvMixer
from convmixer.weights.write import write_weights


@pytest.fixture
def five_classes(tmp_path: Path) -> Path:
    """Weights of the toy's network with a head of five classes, and no names for them."""
    network = architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5, activation="gelu")
    torch.manual_seed(5)
    path = tmp_path / "five.safetensors"
    write_weights(path, ConvMixer(network).state_dict(), architecture=network)
    return path


def last_weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(max(run.checkpoints.iterdir()) / "model.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_frozen_network_learns_with_its_head_only(train: Train, five_classes: Path) -> None:
    run = train("--pretrained", five_classes, "--freeze", epochs=2)
    before, after = load_file(five_classes), last_weights(run)
    # BatchNorm's statistics and counts too are those of the file.
    assert changed(before, after) == {"head.weight", "head.bias"}
    assert after["head.weight"].shape == (3, 8)
    assert f"weights from {five_classes}" in run.done.err
    assert "its head of 5 classes is left out; the new one has 3" in run.done.err


def test_a_frozen_head_does_learn(train: Train, five_classes: Path) -> None:
    first = last_weights(train("--pretrained", five_classes, "--freeze", epochs=1))
    shutil.rmtree("runs")
    second = last_weights(train("--pretrained", five_classes, "--freeze", "--base_lr=0.03", epochs=1))
    assert changed(first, second) == {"head.weight", "head.bias"}


def test_without_freeze_all_of_it_learns(train: Train, five_classes: Path) -> None:
    run = train("--pretrained", five_classes, epochs=1)
    before, after = load_file(five_classes), last_weights(run)
    assert changed(before, after) == before.keys()


def test_training_starts_from_the_weights(train: Train, toy_run: Run) -> None:
    """One step at a vanishing rate leaves the parameters of a head of the same classes where they were."""
    weights = toy_run.best / "best.safetensors"
    run = train("--pretrained", weights, "--base_lr=1e-30", "--weight_decay=0", epochs=1)
    before, after = load_file(weights), last_weights(run)
    assert all("num_batches" in name or "running" in name for name in changed(before, after))


def test_weights_only(train: Train, toy_run: Run) -> None:
    """The epoch, the optimizer and the best score of the old run are not taken over."""
    checkpoint = toy_run.checkpoints / "step_00000004"
    run = train("--pretrained", checkpoint, "--exclude_epoch_state=false", epochs=1)
    assert [entry["step"] for entry in run.metrics("train")] == [1, 2, 3]
    assert run.name != toy_run.name
    assert "pretrained takes over weights only; --resume continues a run" in run.done.err


def test_a_new_class_changes_the_head_alone(
    convmixer: Command, here: Path, own_toy: Path, toy_options: ToyOptions, toy_run: Run
) -> None:
    for split in ("train", "val"):
        (own_toy / split / "white").mkdir()
        Image.new("RGB", (12, 10), "white").save(own_toy / split / "white/0.png")
    weights = toy_run.best / "best.safetensors"
    done = convmixer("train", *toy_options(own_toy, epochs=1), "--pretrained", weights, "--freeze")
    assert done.code == 0, done.err
    (folder,) = (here / "runs/checkpoints").glob("*/*")
    before, after = load_file(weights), load_file(folder / "model.safetensors")
    assert after["head.weight"].shape == (4, 8)
    assert {name for name in before if before[name].shape != after[name].shape} == {"head.weight", "head.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head."))
