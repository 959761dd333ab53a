"""OpenVINO's IR of other programs, and files that only look like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.project import run_python

from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.opening import detect_format, open_model
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError

openvino = pytest.importorskip("openvino")
ops = openvino.opset13

CHOSEN = Preprocessing(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
Means = Callable[..., Path]


def opened(path: Path, **changes: Any) -> ModelFile:
    def choose(record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
        assert record is None
        return Preprocessing(size=8) if changes.get("plain") else CHOSEN

    return open_model(str(path), choose, changes.get("request", DeviceRequest("CPU")))


@pytest.fixture
def write_means(tmp_path: Path) -> Means:
    """`write_means([1, 3, 8, 8])`: a file that answers with the means of the channels, and `after` them."""

    def write(
        shape: list[int],
        dtype: type = np.float32,
        after: Callable[[Any], Any] = lambda means: means,
        name: str = "m.xml",
    ) -> Path:
        images = ops.parameter(shape, dtype, name="images")
        axes = np.array([1, 2] if shape[-1] == 3 else [2, 3])
        means = ops.reduce_mean(ops.convert(images, "f32"), axes, False)
        openvino.save_model(openvino.Model([after(means)], [images], "means"), tmp_path / name, compress_to_fp16=False)
        # A graph without weights has none, and OpenVINO writes an empty file or nothing.
        (tmp_path / name).with_suffix(".bin").touch()
        return tmp_path / name

    return write


def expected(images: np.ndarray) -> np.ndarray:
    return ((images / 255 - 0.5) / 0.25).mean(axis=(1, 2))


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("shape", [[-1, 3, 8, 8], [2, 3, 8, 8], [-1, 3, -1, -1], [-1, 8, 8, 3]])
def test_each_layout_and_batch(write_means: Means, shape: list[int]) -> None:
    model = opened(write_means(shape))
    assert (model.num_classes, model.classes, model.architecture) == (3, None, None)
    np.testing.assert_allclose(model.runtime.logits(IMAGES), expected(IMAGES), atol=1e-5)


def test_pixels_as_they_are(write_means: Means) -> None:
    found = opened(write_means([-1, 3, 8, 8], np.uint8), plain=True).runtime.logits(IMAGES)
    np.testing.assert_allclose(found, IMAGES.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_probabilities_are_undone(write_means: Means, name: str) -> None:
    after = {"softmax": lambda means: ops.softmax(means, 1), "sigmoid": lambda means: ops.sigmoid(means)}[name]
    found, logits = opened(write_means([-1, 3, 8, 8], after=after)).runtime.logits(IMAGES), expected(IMAGES)
    if name == "softmax":  # known up to a number for each image
        found, logits = found - found[:, :1], logits - logits[:, :1]
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_it_is_known_by_its_content(write_means: Means) -> None:
    path = write_means([-1, 3, 8, 8])
    assert detect_format(path) == "openvino"
    path.rename(path.with_suffix(".txt"))
    assert detect_format(path.with_suffix(".txt")) == "openvino"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([-1, 3, 8, 4], "8 x 4 pixels; square images"),
        ([-1, 7, 8, 8], "7 channels"),
        ([-1, 3, 16, 16], "takes images of 16 x 16 pixels"),
        ([4, 3, 5000, 5000], "5000 x 5000"),
    ],
)
def test_inputs_that_are_refused(write_means: Means, shape: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(write_means(shape))


def test_files_that_are_refused(write_means: Means, tmp_path: Path) -> None:
    path = write_means([-1, 3, 8, 8])
    text = path.read_text()
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"its weights, m\.bin, are not beside it"):
        opened(path)
    path.with_suffix(".bin").touch()
    for damage in (
        text[: len(text) // 2],
        text.replace("ReduceMean", "Unheard"),
        '<?xml version="1.0"?><net name="x">',
    ):
        path.write_text(damage)
        with pytest.raises(UserError) as refusal:
            opened(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert len(str(refusal.value).splitlines()) <= 2
    with pytest.raises(UserError, match="no such file"):
        opened(tmp_path / "gone.xml")


def test_a_gpu_that_is_asked_for(write_means: Means) -> None:
    with pytest.raises(UserError, match="OpenVINO runs on the CPU, not on GPU"):
        opened(write_means([-1, 3, 8, 8]), request=DeviceRequest("GPU", is_required=True))


def test_no_torch_is_needed(write_means: Means) -> None:
    code = """
import sys
sys.modules["torch"] = None
import numpy
from convmixer.backends.model_file import DeviceRequest
from convmixer.backends.opening import open_model
from convmixer.data.preprocessing import Preprocessing
model = open_model(sys.argv[1], lambda record, channels, size=None: Preprocessing(size=size), DeviceRequest("CPU"))
print(model.runtime.logits(numpy.zeros((2, 8, 8, 3), numpy.uint8)).shape)
"""
    done = run_python("-c", code, write_means([-1, 3, 8, 8]))
    assert done.stdout == "(2, 3)\n", done.stderr
