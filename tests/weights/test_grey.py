"""Weights for colour images on grey ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Command, Run, ToyOptions

from convmixer.arch import architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.weights.grey import for_grey
from convmixer.weights.load import build, complete
from convmixer.weights.read import read_weights
from convmixer.weights.write import write_weights

INPUTS = Preprocessing(size=8, crop_pct=1.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


def written(path: Path, channels: int, inputs: Preprocessing) -> Path:
    shape = architecture(
        "convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3, activation="gelu", in_chans=channels
    )
    torch.manual_seed(0)
    classes = ClassMap(("blue", "green", "red"))
    write_weights(path, ConvMixer(shape).state_dict(), architecture=shape, classes=classes, preprocessing=inputs)
    return path


def test_a_grey_image_gives_what_it_gave_as_three_equal_channels(tmp_path: Path) -> None:
    colour = read_weights(written(tmp_path / "w.safetensors", 3, INPUTS))
    grey, line = for_grey(colour)
    assert grey.preprocessing is not None
    assert (*grey.preprocessing.mean, *grey.preprocessing.std) == pytest.approx((0.4, 0.2))
    assert "the filters of the 3 channels are summed, mean 0.4 and std 0.2 are the means of theirs" in line
    models = [build(weights, complete(weights)[0], ConvMixer) for weights in (colour, grey)]
    image = (torch.rand(4, 1, 8, 8) - 0.4) / 0.2
    with torch.no_grad():
        torch.testing.assert_close(models[1](image), models[0](image.repeat(1, 3, 1, 1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("words", [[], ["--freeze"], ["--unfreeze_epoch=1"]])
def test_a_run_on_grey_images(
    words: list[str],
    convmixer: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(tmp_path / "w.safetensors", 3, INPUTS)
    done = convmixer("train", *toy_options(toy, epochs=1), f"--pretrained={path}", "--in_chans=1", *words)
    assert done.code == 0, done.err
    assert f"{path}: takes colour; for grey images the filters" in done.err
    found = read_weights(Run.below(here, done).best / "best.safetensors")
    assert found.shape.in_chans == 1
    assert found.preprocessing is not None
    assert found.preprocessing.mean == pytest.approx((0.4,))


def test_weights_for_grey_images_are_refused_for_colour(
    convmixer: Command, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    path = written(tmp_path / "w.safetensors", 1, Preprocessing(size=8, crop_pct=1.0, mean=(0.5,), std=(0.2,)))
    done = convmixer("train", *toy_options(toy), f"--pretrained={path}", "--in_chans=3")
    assert (done.code, done.error) == (2, "in_chans: the weights take 1 channels, the options say 3")
