"""Each format that runs here: its file answers as torch does, in batches of any size, and carries the record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exporters.conftest import lively_model, metadata_of

from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.opening import open_model
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.exporters.format import WriteSettings, format_of, formats_with
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer

PACKAGES = {"OPENVINO": "openvino", "EXECUTORCH": "executorch"}
# By rounding only; half precision keeps 11 bits of each weight, int8 seven.
ALLOWED = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}


def opened(path: Path) -> ModelFile:
    def as_it_says(record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
        assert record is not None
        return record

    return open_model(str(path), as_it_says, DeviceRequest("CPU", native_code=True))


def write(name: str, model: ConvMixer, metadata: ModelMetadata, folder: Path, *int8_skip: str) -> Path:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"{name} needs {PACKAGES[name]}")
    form, path = format_of(name), folder / f"m{format_of(name).suffix}"

    def calibration() -> Iterator[np.ndarray]:
        yield random_images(16, model.arch.in_chans)

    form.write(model, metadata, path, WriteSettings(calibration, int8_skip=int8_skip))
    return path


def random_images(count: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, channels), np.uint8)


def expected_of(model: ConvMixer, images: np.ndarray) -> np.ndarray:
    """torch's logits; mean and deviation are those of `metadata_of`."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return model((planes - 0.45) / 0.22).numpy()


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("OPENVINO", "fp32"),
        ("OPENVINO", "fp16"),
        ("OPENVINO", "int8"),
        ("PT2", "fp32"),
        pytest.param("EXECUTORCH", "fp32", marks=pytest.mark.slow),
        pytest.param("AOTI", "fp32", marks=pytest.mark.slow),
    ],
)
def test_it_answers_as_torch_does(small: ConvMixer, tmp_path: Path, name: str, precision: str) -> None:
    metadata = metadata_of(small, precision=precision)
    model = opened(write(name, small, metadata, tmp_path))
    assert model.architecture == small.arch
    assert model.classes == metadata.classes
    assert model.preprocessing == metadata.preprocessing
    for count in (1, 5):
        images = random_images(count)
        expected = expected_of(small, images)
        difference = np.abs(model.runtime.logits(images) - expected).max() / np.abs(expected).max()
        assert difference < ALLOWED[precision]


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_openvino_has_each_activation(tmp_path: Path, activation: str) -> None:
    model = lively_model("convmixer_8_1", kernel_size=4, patch_size=2, num_classes=3, in_chans=1, activation=activation)
    path = write("OPENVINO", model, metadata_of(model), tmp_path)
    images = random_images(3, 1)
    np.testing.assert_allclose(opened(path).runtime.logits(images), expected_of(model, images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_int8_is_smaller_and_skipped_layers_are_not_in_it(tmp_path: Path) -> None:
    model = lively_model("convmixer_64_2", kernel_size=3, patch_size=4, num_classes=5)
    sizes = []
    for skipped in ((), ("blocks.0.pointwise",), ("blocks.0.pointwise", "head")):
        path = write("OPENVINO", model, metadata_of(model, precision="int8"), tmp_path, *skipped)
        sizes.append(path.with_suffix(".bin").stat().st_size)
    # A weight takes one byte in place of four.
    assert sizes[1] - sizes[0] == pytest.approx(3 * 64 * 64, abs=1024)
    assert sizes[2] - sizes[1] == pytest.approx(3 * 64 * 5, abs=256)
    with pytest.raises(UserError, match="'head\\.weight' is none of the layers in int8: blocks\\.0\\.pointwise, "):
        write("OPENVINO", model, metadata_of(model, precision="int8"), tmp_path, "head.weight")


def test_half_precision_halves_the_weights(small: ConvMixer, tmp_path: Path) -> None:
    sizes = []
    for precision in ("fp32", "fp16"):
        path = write("OPENVINO", small, metadata_of(small, precision=precision), tmp_path)
        sizes.append(path.with_suffix(".bin").stat().st_size)
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.05)


def test_which_formats_take_an_option() -> None:
    assert formats_with("embed_preprocess") == ["ONNX", "WEB"]
    assert formats_with("int8_skip") == ["ONNX", "OPENVINO", "WEB"]


def test_a_record_that_was_changed_is_refused(small: ConvMixer, tmp_path: Path) -> None:
    path = write("OPENVINO", small, metadata_of(small), tmp_path)
    path.write_text(path.read_text().replace("class 0", "class X"))
    with pytest.raises(UserError, match="its SHA-256 does not fit its content"):
        opened(path)


def test_the_images_held_out_travel_with_the_file(small: ConvMixer, tmp_path: Path) -> None:
    facts = {"held_out": {"val_fraction": 0.2, "seed": 0, "sha256": "0"}}
    path = write("PT2", small, replace(metadata_of(small), extra=facts), tmp_path)
    assert opened(path).facts == facts
