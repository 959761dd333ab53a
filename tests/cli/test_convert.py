"""`convmixer convert` and the files it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Command

from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer, create_model
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights

CLASSES, INPUTS = ClassMap(("lily", "rose", "tulip")), Preprocessing(size=16)


@pytest.fixture
def model() -> ConvMixer:
    torch.manual_seed(0)
    return create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3)


@pytest.fixture
def source(model: ConvMixer, tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    write_weights(
        path,
        model.state_dict(),
        architecture=model.arch,
        classes=CLASSES,
        preprocessing=INPUTS,
        extra={"top1": 0.5},
    )
    return path


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("native", "convmixer_8_2.safetensors"),
        ("authors", "convmixer_8_2.pth.tar"),
        ("timm", "convmixer_8_2_timm.safetensors"),
        ("mindspore", "convmixer_8_2.ckpt"),
    ],
)
def test_every_layout_is_written_here_and_holds_the_same_weights(
    convmixer: Command, source: Path, model: ConvMixer, layout: str, name: str
) -> None:
    done = convmixer("convert", source, "--to", layout)
    assert (done.code, done.out) == (0, f"{name}\n"), done.err
    found = read_weights(name)
    assert found.source == layout
    floats = {key: tensor for key, tensor in model.state_dict().items() if tensor.is_floating_point()}
    assert all(torch.equal(found.state[key], tensor) for key, tensor in floats.items())


@pytest.mark.parametrize("layout", ["native", "timm"])
def test_safetensors_keep_all_that_the_file_said(convmixer: Command, source: Path, layout: str) -> None:
    done = convmixer("convert", source, "--to", layout, "--output", "new.safetensors")
    assert done.err == ""
    found = read_weights("new.safetensors")
    assert (found.activation, found.classes, found.preprocessing) == ("gelu", CLASSES, INPUTS)
    assert found.metadata == {"top1": 0.5}


def test_what_is_lost_is_logged(convmixer: Command, source: Path) -> None:
    done = convmixer("convert", source, "--to", "mindspore")
    assert done.err == (
        "convmixer_8_2.ckpt: this layout has no place for the activation (gelu), the names of the 3 classes, "
        "the preprocessing\n"
        "convmixer_8_2.ckpt: the network computes GELU by erf: nn.GELU(approximate=False) in MindSpore, "
        "--activation gelu here\n"
    )


def test_there_and_back_changes_nothing(convmixer: Command, source: Path, model: ConvMixer) -> None:
    """All layouts in turn; the counters of BatchNorm, which MindSpore does not have, are nought in a new model too."""
    steps = (("authors", "a.pth"), ("mindspore", "b.ckpt"), ("timm", "c.pth"), ("native", "d.safetensors"))
    before: Path | str = source
    for layout, after in steps:
        done = convmixer("convert", before, "--to", layout, "--output", after, "--activation", "gelu")
        assert done.code == 0, done.err
        before = after
    found = read_weights("d.safetensors")
    assert found.architecture == model.arch
    assert found.state.keys() == model.state_dict().keys()
    assert all(torch.equal(found.state[key], tensor) for key, tensor in model.state_dict().items())


def test_half_precision_stays(convmixer: Command, model: ConvMixer, tmp_path: Path) -> None:
    write_weights(tmp_path / "half.safetensors", model.half().state_dict(), architecture=model.arch)
    convmixer("convert", tmp_path / "half.safetensors", "--to", "mindspore")
    assert read_weights("convmixer_8_2.ckpt").state["head.weight"].dtype is torch.float16


def test_a_checkpoint_folder_gives_its_averaged_weights(convmixer: Command, toy_run: Any) -> None:
    folder = max(toy_run.checkpoints.iterdir())
    assert convmixer("convert", folder, "--to", "authors").code == 0
    averaged = read_weights(folder / "ema.safetensors").state["head.weight"]
    assert torch.equal(read_weights("convmixer_8_2.pth.tar").state["head.weight"], averaged)


def test_the_input_is_not_overwritten(convmixer: Command, source: Path) -> None:
    before = source.read_bytes()
    done = convmixer("convert", source, "--to", "native", "--output", source.parent / "." / source.name)
    assert (done.code, done.error) == (2, f"--output: {source} is what is converted; name another file")
    assert source.read_bytes() == before


def test_nothing_is_written_into_the_checkpoint_that_is_read(convmixer: Command, toy_run: Any) -> None:
    folder = max(toy_run.checkpoints.iterdir())
    done = convmixer("convert", folder, "--to", "native", "--output", folder / "model.safetensors")
    assert done.code == 2
    assert "is what is converted" in done.error


def test_a_file_that_nobody_named_is_not_replaced(convmixer: Command, source: Path, here: Path) -> None:
    (here / "convmixer_8_2.ckpt").write_text("precious")
    done = convmixer("convert", source, "--to", "mindspore")
    assert (done.code, done.error) == (2, "convmixer_8_2.ckpt: is there already; name the new file with --output")
    assert (here / "convmixer_8_2.ckpt").read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--to: the new file's layout is needed: native, authors, timm, mindspore"),
        (("--to", "keras"), "--to: should be 'native', 'authors', 'timm' or 'mindspore', not 'keras'"),
        (("--to", "mindspore", "--output", "a.pth"), "--output: a.pth must end in .ckpt for --to mindspore"),
        (("--to", "native", "--output", "no/a.safetensors"), "--output: there is no folder no"),
        (("--to", "native", "--activation", "relu"), "was trained with activation gelu, not relu"),
    ],
)
def test_wrong_use_is_one_line(convmixer: Command, source: Path, words: tuple[str, ...], message: str) -> None:
    done = convmixer("convert", source, *words)
    assert done.code == 2
    assert message in done.error
    assert "\n" not in done.error


def test_without_weights(convmixer: Command) -> None:
    done = convmixer("convert", "--to", "native")
    assert done.code == 2
    assert done.error.startswith("WEIGHTS: ")


def test_a_file_that_is_only_a_part_is_refused(convmixer: Command, model: ConvMixer, here: Path) -> None:
    state = {name: tensor for name, tensor in model.state_dict().items() if "blocks.1.pointwise.bias" not in name}
    torch.save(state, here / "part.pth")
    done = convmixer("convert", "part.pth", "--to", "mindspore", "--activation", "relu")
    assert done.code == 2
    assert "lacks blocks.1.pointwise.bias" in done.error
    assert not (here / "convmixer_8_2.ckpt").exists()
