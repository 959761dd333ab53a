"""Defaults that suit the data: what is chosen for which, what goes before it, and that it is recorded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.conftest import Command, Run

from convmixer.config.commands import TRAIN
from convmixer.config.loading import parse
from convmixer.data.classes import ClassMap
from convmixer.data.source import ArraySource
from convmixer.training.suiting import ORIGIN, DataFacts, facts_of, options_for, suited


def photos(count: int, side: int) -> ArraySource:
    pixels = np.zeros((count, side, side + 9, 3), np.uint8)
    return ArraySource(pixels, np.arange(count) % 2, ClassMap(("a", "b")), "photos")


CPU = torch.device("cpu")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("side", [1, 8, 17, 28, 32, 47, 64, 95, 100, 128, 224, 4000])
@pytest.mark.parametrize("images", [4, 500, 3457, 60_000, 1_281_167])
def test_every_choice_is_a_network_that_fits(images: int, side: int, gpu: bool) -> None:
    values = options_for(DataFacts(images, side, gpu, bf16=True))
    for name in ("image_size", "train_image_size"):
        assert values.get(name, values["image_size"]) % values["patch_size"] == 0
        # Enough positions for a kernel of five to see neighbours.
        assert values.get(name, values["image_size"]) // values["patch_size"] >= 8
    assert values.get("train_image_size", 0) <= values["image_size"]
    parse(TRAIN, [f"--{name}={value}" for name, value in values.items()])


def test_small_sets_are_shown_more_often() -> None:
    epochs = [options_for(DataFacts(images, 128, False, False))["epochs"] for images in (100, 1000, 3457, 50_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (60, 10)


def test_what_the_facts_are() -> None:
    facts = facts_of(photos(100, 40), CPU, 10**8)
    assert (facts.images, facts.side, facts.gpu) == (100, 40, False)


def test_what_the_user_gives_goes_before() -> None:
    resolved = parse(TRAIN, ["x", "--epochs=3", "--image_size=24", "--base_lr=0.5"])
    said: list[str] = []
    options = suited(resolved, photos(100, 128), CPU, said.append).options
    assert (options.epochs, options.image_size, options.train_image_size) == (3, 24, None)
    assert (options.base_lr, options.optimizer, options.filter_init) == (0.5, "adamw", "torch")
    assert options.batch_size == 32
    assert "100 images of about 128 pixels" in said[0]
    chosen = suited(parse(TRAIN, ["x"]), photos(100, 128), CPU, said.append).options
    assert (chosen.base_lr, chosen.optimizer, chosen.filter_init) == (0.02, "muon", "covariance")


@pytest.mark.parametrize("words", [["x", "--config=small_folder"], ["--set=digits"], ["x", "--pretrained=w"]])
def test_a_recipe_that_was_named_holds_as_it_is(words: list[str]) -> None:
    resolved = parse(TRAIN, words)
    assert suited(resolved, photos(100, 128), CPU, pytest.fail) is resolved


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            pixels = draw.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_it_is_recorded_and_a_resumed_run_keeps_it(convmixer: Command, here: Path, flowers: Path) -> None:
    small = ["--arch=convmixer_8_2", "-j0", "--execution=eager", "--epochs=2"]
    done = convmixer("train", str(flowers), *small)
    assert done.code == 0, done.err
    assert "chosen for 16 images of about 30 pixels (shorter side)" in done.err
    run = Run.below(here, done)
    text = (run.summary / "config.yaml").read_text()
    assert f"image_size: 32  # {ORIGIN}" in text
    assert f"patch_size: 2  # {ORIGIN}" in text
    # Another number of images would be another choice; the run keeps its own.
    before = yaml.safe_load(text)
    done = convmixer("train", "--resume", "auto")
    assert done.code == 0, done.err
    assert "chosen for" not in done.err
    assert {**yaml.safe_load((run.summary / "config.yaml").read_text()), "resume": None} == {**before, "resume": None}


def test_a_time_budget_chooses_the_epochs(convmixer: Command, here: Path, flowers: Path) -> None:
    small = ["--arch=convmixer_8_2", "-j0", "--execution=eager"]
    done = convmixer("train", str(flowers), *small, "--time_budget=2s")
    assert done.code == 0, done.err
    said = re.search(r"time_budget 0:02: (\d+) epochs of about", done.err)
    assert said is not None
    saved = yaml.safe_load((Run.below(here, done).summary / "config.yaml").read_text())
    assert saved["epochs"] == int(said[1]) >= 1
    assert saved["time_budget"] == 2.0
    assert "leave one of them out" in convmixer("train", str(flowers), "--time_budget=2s", "--epochs=3").error


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800), ("30", 30)])
def test_durations(text: str, seconds: float) -> None:
    assert parse(TRAIN, [f"--time_budget={text}"]).options.time_budget == seconds


def test_a_smaller_side_in_training_is_that_of_the_crops(convmixer: Command, here: Path, flowers: Path) -> None:
    words = ["--arch=convmixer_8_2", "-j0", "--execution=eager", "--epochs=1", "--image_size=32", "--patch_size=4"]
    done = convmixer("train", str(flowers), *words, "--train_image_size=24", "--collect_input_data")
    assert done.code == 0, done.err
    run = Run.below(here, done)
    with Image.open(run.summary / "input.png") as grid:
        assert grid.size == (6 * 24, 6 * 24)  # 32 images
    from convmixer.weights.read import read_weights

    preprocessing = read_weights(run.best).preprocessing
    assert preprocessing is not None
    assert preprocessing.size == 32
    wrong = convmixer("train", str(flowers), *words, "--train_image_size=3")
    assert wrong.code == 2
    assert "smaller than" in wrong.error or "patch" in wrong.error
