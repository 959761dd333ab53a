"""`--pretrained` and `--freeze`: what is taken over from weights, and what training changes of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import Command, Run, ToyOptions, Train

from convmixer.arch import architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.weights.load import load_into
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


def test_a_frozen_head_is_a_minimum_whatever_the_schedule_is(train: Train, five_classes: Path) -> None:
    first = train("--pretrained", five_classes, "--freeze", epochs=1)
    weights = last_weights(first)
    assert "--freeze: finds the head as a minimum, on which these have no influence: epochs, base_lr" in first.done.err
    shutil.rmtree("runs")
    second = last_weights(train("--pretrained", five_classes, "--freeze", "--base_lr=0.03", epochs=2))
    assert changed(weights, second) == set()


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
    assert "resumed" not in run.done.err
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


INPUTS = Preprocessing(size=10, crop_pct=0.8, interpolation="bilinear", mean=(0.2,) * 3, std=(0.3,) * 3, exif=True)


def named(path: Path, *names: str, inputs: Preprocessing | None = None) -> Path:
    """Weights of the toy's network, with these classes."""
    network = architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=len(names), activation="gelu")
    torch.manual_seed(len(names))
    state = ConvMixer(network).state_dict()
    write_weights(path, state, architecture=network, classes=ClassMap(names), preprocessing=inputs)
    return path


def heads(train: Train, weights: Path, *words: str) -> tuple[Run, torch.Tensor, torch.Tensor]:
    """A run of a vanishing rate from the weights; the rows [classes, dim + 1] of their head and of the run's."""
    run = train("--pretrained", weights, "--base_lr=1e-30", "--weight_decay=0", *words, epochs=1)
    before, after = (
        torch.cat([state["head.weight"], state["head.bias"][:, None]], dim=1)
        for state in (load_file(weights), last_weights(run))
    )
    return run, before, after


@pytest.mark.parametrize(
    ("names", "kept", "said"),
    [
        # The data's are blue, green, red.
        (("blue", "green", "violet"), {0: 0, 1: 1}, "keeps 2 of 3 rows, by the names of their classes; 1 new: red."),
        (("red", "blue", "green"), {0: 1, 1: 2, 2: 0}, "3 rows are put in the order of the data's classes"),
        (("red", "ochre", "white", "blue", "black"), {0: 3, 2: 0}, "keeps 2 of 5 rows"),
        (("red", "ochre", "blue", "green"), {0: 2, 1: 3, 2: 0}, "keeps 3 of 4 rows"),
        (("one", "two", "three"), {}, "its head of 3 classes is left out; none is a class of the data"),
    ],
)
def test_the_heads_rows_are_found_by_name(
    train: Train, here: Path, names: tuple[str, ...], kept: dict[int, int], said: str
) -> None:
    run, before, after = heads(train, named(here / "w.safetensors", *names))
    assert {row: [bool((after[row] == old).all()) for old in before].index(True) for row in kept} == kept
    new = [row for row in range(3) if row not in kept]
    assert not any((after[row] == old).all() for row in new for old in before)
    assert said in run.done.err


def test_the_heads_rows_stay_where_the_names_agree(train: Train, here: Path) -> None:
    run, before, after = heads(train, named(here / "w.safetensors", "blue", "green", "red"))
    assert torch.equal(before, after)
    assert "its head" not in run.done.err


def test_names_in_another_unicode_form_are_the_same(tmp_path: Path, tiny_model: ConvMixer) -> None:
    weights = read_weights(named(tmp_path / "w.safetensors", "ro\u0301t", "blau"))
    load_into(tiny_model, weights, replace_head=True, classes=ClassMap(("blau", "r\u00f3t")))
    assert torch.equal(tiny_model.head.weight, weights.state["head.weight"].flip(0))


@pytest.fixture
def tiny_model() -> ConvMixer:
    return ConvMixer(architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=2, activation="gelu"))


def test_a_head_without_names_of_the_same_number_is_kept_and_logged(train: Train, toy_run: Run, here: Path) -> None:
    weights = here / "three.safetensors"
    network = architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3, activation="gelu")
    write_weights(weights, ConvMixer(network).state_dict(), architecture=network)
    run, before, after = heads(train, weights)
    assert torch.equal(before, after)
    assert "names no classes; its head is kept, its 3 outputs taken for the 3 classes in their order" in run.done.err


def test_outputs_without_names_are_counted_where_the_classes_are_numbers(
    convmixer: Command, here: Path, toy_options: ToyOptions
) -> None:
    for split in ("train", "val"):
        for number in range(12):
            (here / "data" / split / str(number)).mkdir(parents=True)
            Image.new("RGB", (9, 9), (20 * number, 0, 0)).save(here / "data" / split / str(number) / "0.png")
    network = architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=12, activation="gelu")
    write_weights(here / "w.safetensors", ConvMixer(network).state_dict(), architecture=network)
    words = toy_options(here / "data", epochs=1, base_lr=1e-30)
    done = convmixer("train", *words, "--weight_decay=0", "--pretrained=w.safetensors")
    assert done.code == 0, done.err
    assert "the weights name no classes; the data's, 0 to 11, are taken for their outputs by their numbers" in done.err
    run = Run.below(here, done)
    assert read_weights(run.best).classes == ClassMap(tuple(map(str, range(12))))
    assert torch.equal(last_weights(run)["head.weight"], load_file("w.safetensors")["head.weight"])
    # From scratch the names travel with the weights, in the order that folders have everywhere.
    shutil.rmtree("runs")
    assert convmixer("train", *words).code == 0
    (best,) = (here / "runs/best").iterdir()
    assert read_weights(best).classes == ClassMap(tuple(sorted(map(str, range(12)))))


def of_weights(words: list[str]) -> list[str]:
    """Options of the toy that leave its input to the weights."""
    own = ("--image_size", "--crop_pct", "--interpolation", "--arch", "--kernel_size", "--patch_size")
    return [word for word in words if not word.startswith(own)]


def test_the_weights_preprocessing_holds(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> None:
    weights = named(here / "w.safetensors", "blue", "green", "red", inputs=INPUTS)
    words = [*of_weights(toy_options(toy, epochs=1)), "--pretrained", weights]
    done = convmixer("train", *words)
    assert done.code == 0, done.err
    run = Run.below(here, done)
    # The recipe small_folder, which the command chose, says 64 pixels, crop_pct 0.96 and bilinear.
    assert (
        "the weights' preprocessing holds, not the recipe's in brackets: image_size 10 (64), crop_pct 0.8 (0.96)"
        in (done.err)
    )
    assert read_weights(run.best).preprocessing == INPUTS
    assert read_weights(run.checkpoints / "step_00000003").preprocessing == INPUTS
    saved = (run.summary / "config.yaml").read_text()
    assert f"image_size: 10  # {weights}\n" in saved
    assert f"std: [0.3, 0.3, 0.3]  # {weights}\n" in saved
    # What a run was trained with is what it goes on with.
    done = convmixer("train", *words[:-2], "--resume", run.checkpoints, "--image_size=64")
    assert done.code == 2
    assert "image_size: 10 then, 64 now" in done.error


def test_the_command_line_wins_over_the_weights_and_these_over_a_recipe_that_was_named(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    weights = named(here / "w.safetensors", "blue", "green", "red", inputs=INPUTS)
    (here / "mine.yaml").write_text("image_size: 6\nmean: [0.5, 0.5, 0.5]\ninterpolation: random\nexif: False\n")
    words = of_weights(toy_options(toy, epochs=1))
    done = convmixer("train", *words, "--config=mine.yaml", f"--pretrained={weights}", "--std", ".1", ".1", ".1")
    assert done.code == 0, done.err
    found = read_weights(Run.below(here, done).best).preprocessing
    assert found == replace(INPUTS, std=(0.1, 0.1, 0.1))
    assert "image_size 10 (6), mean 0.2 0.2 0.2 (0.5 0.5 0.5), exif True (False)" in done.err
    # The crops of training are the recipe's all the same.
    assert "interpolation: random  # mine.yaml" in next(here.glob("runs/summary/*/config.yaml")).read_text()
