"""`--entry` of the commands that read weights, weights without a head, and folders of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Command, ToyOptions
from tests.weights.conftest import as_timm

from convmixer.arch import architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights

ARCH = architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3, activation="gelu")
SIZE = ("--image_size", 8, "--activation", "gelu")


def state(seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """A network of the toy's in timm's layout."""
    torch.manual_seed(seed)
    return as_timm(ConvMixer(ARCH).state_dict(), prefix)


@pytest.fixture
def two(here: Path) -> Path:
    """A file with a student and a teacher."""
    torch.save({"student": state(1), "teacher": state(2, "module.")}, "two.pth")
    return here / "two.pth"


@pytest.mark.parametrize(
    "words",
    [
        lambda path, toy: ("eval", "--pretrained", path, "--data_url", toy, *SIZE),
        lambda path, toy: ("infer", toy / "val/red", "--checkpoint", path, *SIZE),
        lambda path, toy: ("convert", path, "--to", "native", "--activation", "gelu"),
        lambda path, toy: ("push", path, "--repo", "a/b", "--dry_run", "--activation", "gelu"),
        lambda path, toy: ("export", "--pretrained", path, "--data_url", toy, "--parity_images", 2, *SIZE),
    ],
    ids=["eval", "infer", "convert", "push", "export"],
)
def test_a_file_of_two_networks_needs_a_name(
    convmixer: Command, toy: Path, two: Path, words: Callable[[Path, Path], tuple[Any, ...]]
) -> None:
    done = convmixer(*words(two, toy))
    assert done.code == 2
    assert done.error == f"{two}: holds several networks, student, teacher.module; --entry NAME picks one."
    done = convmixer(*words(two, toy), "--entry", "teacher")
    assert done.code == 0, done.err
    assert "not used: student" in done.err


def test_training_starts_from_the_named_one(
    convmixer: Command, toy: Path, two: Path, toy_options: ToyOptions, here: Path
) -> None:
    options = toy_options(toy, epochs=1, pretrained=two)
    assert convmixer("train", *options, "--activation=gelu", "--freeze").code == 2
    assert not (here / "runs").exists()
    done = convmixer("train", *options, "--activation=gelu", "--freeze", "--entry=teacher")
    assert done.code == 0, done.err
    (best,) = (here / "runs/best").glob("*/best.safetensors")
    assert torch.equal(read_weights(best).state["stem.conv.weight"], state(2)["stem.0.weight"])


def test_entry_is_for_weight_files(convmixer: Command, toy: Path, here: Path) -> None:
    (here / "a.onnx").write_bytes(b"\x08\x08\x12\x00")
    done = convmixer("eval", "--pretrained", "a.onnx", "--data_url", toy, "--entry", "x")
    assert (done.code, done.error) == (2, "--entry: names a network of a weight file; a.onnx is none")


def test_weights_without_a_head_are_for_training_only(
    convmixer: Command, toy: Path, toy_options: ToyOptions, here: Path
) -> None:
    torch.save({name: tensor for name, tensor in state(1).items() if not name.startswith("head")}, "w.pth")
    for words in (
        ("eval", "--pretrained", "w.pth", "--data_url", toy, *SIZE),
        ("infer", toy / "val/red", "--checkpoint", "w.pth", *SIZE),
        ("export", "--pretrained", "w.pth", *SIZE),
        ("convert", "w.pth", "--to", "native", "--activation", "gelu"),
    ):
        done = convmixer(*words)
        assert done.code == 2
        assert done.error == "w.pth: has no head, so it answers in no classes; train one: train --pretrained."
    done = convmixer("train", *toy_options(toy, epochs=1, pretrained="w.pth"), "--activation=gelu")
    assert done.code == 0, done.err
    assert "w.pth: has no head; the new one has 3 classes." in done.err


def test_names_and_preprocessing_of_a_hub_folder(convmixer: Command, toy: Path, here: Path) -> None:
    """It answers and scores as the same weights with the same record in a file of ours."""
    folder = here / "hub"
    folder.mkdir()
    torch.save(state(1, "timm_model."), folder / "pytorch_model.bin")
    cfg = {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.9, "interpolation": "bilinear"}
    names = ["red", "blue", "green"]
    (folder / "config.json").write_text(json.dumps({"label_names": names, "pretrained_cfg": cfg}))
    torch.manual_seed(1)
    ours = ConvMixer(ARCH).state_dict()
    inputs = Preprocessing(8, 0.9, "bilinear", (0.5,) * 3, (0.25,) * 3)
    write_weights(here / "w", ours, architecture=ARCH, classes=ClassMap(tuple(names)), preprocessing=inputs)
    outputs = []
    for weights in (folder, here / "w"):
        done = convmixer("infer", toy / "val/red", "--checkpoint", weights, "--activation", "gelu", "--format", "full")
        scored = convmixer("eval", "--pretrained", weights, "--data_url", toy, "--activation", "gelu")
        assert (done.code, scored.code) == (0, 0), done.err + scored.err
        outputs.append((done.out, scored.out))
    assert outputs[0] == outputs[1]
    (folder / "config.json").write_text(json.dumps({"label_names": ["a", "b", "c"]}))
    done = convmixer("eval", "--pretrained", folder, "--data_url", toy, "--activation", "gelu")
    assert done.code == 1
    assert "a class 'blue' that the training classes do not have" in done.error


def test_names_in_a_file_never_reach_the_terminal_as_they_are(convmixer: Command, toy: Path, here: Path) -> None:
    torch.save({"net": state(1), "opt\x1b[31m\n": {"a": torch.zeros(2)}}, "w.pth")
    done = convmixer("eval", "--pretrained", "w.pth", "--data_url", toy, *SIZE)
    assert done.code == 0, done.err
    assert "\x1b" not in done.err
    assert "not used: opt\\x1b[31m\\n" in done.err
