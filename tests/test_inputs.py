"""Which preprocessing holds: one place for its defaults, and the same answer of every command that runs weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.conftest import Command
from tests.project import PHOTOS, needs_photos

from convmixer.arch import architecture
from convmixer.cli import eval_command, eval_onnx_command, infer_command, infer_onnx_command, train_command
from convmixer.config.command import Command as CommandLine
from convmixer.config.loading import parse
from convmixer.config.options import options_of
from convmixer.config.resolved import Resolved
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.inputs import preprocessing_for
from convmixer.model import ConvMixer
from convmixer.weights.layouts import Layout
from convmixer.weights.write import write_layout

PHOTO = PHOTOS / "n01440764_tench.JPEG"
# Without a recipe where the user names none.
COMMANDS = [
    replace(module.COMMAND, default_recipe=lambda given: None)
    for module in (train_command, eval_command, infer_command, eval_onnx_command, infer_onnx_command)
]
TRAIN = COMMANDS[0]
# Three values each, by hand: those of weights that an ImageNet pipeline of 0..255 pixels comes with.
LEVELS = ["123.675", "116.28", "103.53"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_one_place_has_the_defaults(command: CommandLine) -> None:
    assert preprocessing_for(parse(command, []), None, 3) == Preprocessing()
    helps = {option.name: option.help for option in options_of(command.model)}
    assert helps["image_size"].endswith(f"else {Preprocessing().size}")
    assert helps["crop_pct"].endswith("else .96")
    assert Preprocessing().crop_pct == 0.96
    assert not Preprocessing().exif


def test_a_recipe_of_the_model_zoo_reads_images_as_ours_of_that_name(tmp_path: Path) -> None:
    """Its own file has none of the keys `exif`, `crop_pct`, `mean` and `std`."""
    (tmp_path / "zoo.yaml").write_text("arch: convmixer_768_32\nimage_size: 224\ninterpolation: random\n")
    theirs, ours = (parse(TRAIN, ["--config", name]) for name in (str(tmp_path / "zoo.yaml"), "convmixer_768_32"))
    assert preprocessing_for(theirs, None, 3) == preprocessing_for(ours, None, 3) == Preprocessing()


def exif_of(recipe: str) -> bool:
    return preprocessing_for(parse(TRAIN, ["--config", recipe]), None, 3 - 2 * (recipe == "digits")).exif


@pytest.mark.parametrize("recipe", ["small_folder", "digits"])
def test_photos_of_ones_own_are_turned(recipe: str) -> None:
    assert exif_of(recipe)


@pytest.mark.parametrize(
    "recipe", ["convmixer_768_32_authors", "convmixer_1024_20", "convmixer_1536_20", "cifar10_256_8"]
)
def test_those_of_published_results_are_not(recipe: str) -> None:
    assert not exif_of(recipe)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
@pytest.mark.parametrize("name", ["mean", "std"])
def test_values_of_pixels_in_0_to_255_are_refused(command: CommandLine, name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^--{name}: is 123\.675 116\.28 103\.53, of pixels in 0\.\.255; divide by 255$"
    ):
        parse(command, [f"--{name}", *LEVELS])


def test_so_they_are_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("std: [58.395, 57.12, 57.375]\n")
    with pytest.raises(
        UserError, match=r"mine\.yaml: std: is 58\.395 57\.12 57\.375, of pixels in 0\.\.255; divide by 255$"
    ):
        parse(TRAIN, ["--config", str(tmp_path / "mine.yaml")])


def test_and_in_weights_until_the_user_gives_others() -> None:
    record = Preprocessing(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))

    def chosen(*words: str) -> Preprocessing:
        resolved: Resolved[Any] = parse(infer_command.COMMAND, words)
        return preprocessing_for(resolved, record, 3)

    with pytest.raises(
        UserError, match=r"^the weights say a mean of 103\.53 116\.28 123\.675, .*divide by 255 and give both"
    ):
        chosen("--std", "0.2", "0.2", "0.2")
    assert chosen("--mean=.4,.4,.4", "--std=.2,.2,.2").mean == (0.4, 0.4, 0.4)


def test_random_is_for_training_crops() -> None:
    bilinear = Preprocessing(interpolation="bilinear")
    resolved = parse(TRAIN, ["--interpolation=random"])
    assert preprocessing_for(resolved, bilinear, 3).interpolation == "bilinear"
    assert preprocessing_for(resolved, None, 3).interpolation == "bicubic"
    resolved = parse(TRAIN, ["--interpolation=box"])
    assert preprocessing_for(resolved, bilinear, 3).interpolation == "box"


@needs_photos
@pytest.mark.parametrize(
    "layout", ["authors", *(pytest.param(layout, marks=pytest.mark.slow) for layout in ("timm", "mindspore"))]
)
def test_a_turned_photo_is_answered_by_the_exported_file_as_by_the_weights(
    convmixer: Command, here: Path, layout: Layout
) -> None:
    """Weights of others say nothing of EXIF: nothing is turned, but where that is asked for, by both."""
    network = architecture("convmixer_8_1", kernel_size=7, patch_size=7, num_classes=6, activation="relu")
    torch.manual_seed(1)
    state = ConvMixer(network).state_dict()
    state["head.weight"] *= 40  # so that the answers tell a photo from the same one turned
    write_layout(here / "w", state, layout, architecture=network)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(PHOTO) as photo:
        photo.save(here / "phone.jpg", exif=exif, quality=95)

    def answer(*words: str) -> list[float]:
        done = convmixer(*words, "--format=full", "--topk=6", "-j0")
        assert done.code == 0, done.err
        top = json.loads((here / "predictions.json").read_text())["phone.jpg"]["top"]
        return [entry["probability"] for entry in sorted(top, key=lambda entry: entry["class"])]

    found = {}
    for turn in ([], ["--exif"]):
        done = convmixer("export", "--pretrained=w", "--activation=relu", "-o", "w.onnx", "--parity_images=1", *turn)
        assert done.code == 0, done.err
        found[bool(turn)] = answer("infer", "phone.jpg", "--checkpoint=w", "--activation=relu", *turn)
        assert answer("infer-onnx", "phone.jpg", "--onnx_path=w.onnx") == pytest.approx(found[bool(turn)], abs=1e-5)
    assert max(abs(one - other) for one, other in zip(found[False], found[True], strict=True)) > 0.01
