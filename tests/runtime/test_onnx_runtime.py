"""ONNX files of others: any batch, input name and size that can be run; all else is refused in a line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.conftest import Write

from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.runtime.model_file import DeviceWish, ModelFile
from convmixer.runtime.onnx_runtime import open_onnx

CPU = DeviceWish("CPU")


def choose(record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
    assert record is None
    return Preprocessing(size=size or 8) if channels == 3 else Preprocessing(size=size or 8, mean=(0.5,), std=(0.25,))


def opened(path: Path) -> ModelFile:
    return open_onnx(str(path), choose, CPU)


def channel_means(images: np.ndarray) -> np.ndarray:
    """By hand: ImageNet's mean and deviation taken from pixels in 0..1, then the mean over the image."""
    scaled = (images.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return scaled.mean(axis=(1, 2))


@pytest.mark.parametrize(
    "inputs",
    [
        "float[n, 3, 8, 8] data",
        "float[1, 3, 8, 8] pixel_values",
        "float[4, 3, 8, 8] x",
        "float[n, 3, h, w] x",
        "float[n, c, h, w] x",
        "double[2, 3, 8, 8] x",
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_batches_of_any_kind_give_every_image_its_answer(write_model: Write, inputs: str, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    batch = inputs.partition("[")[2].partition(",")[0]
    outputs = f"{inputs.partition('[')[0]}[{batch}, 3] out"
    model = opened(write_model(inputs, outputs))
    found = model.runtime.logits(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, channel_means(images), rtol=1e-5, atol=1e-6)
    assert (model.num_classes, model.classes, model.preprocessing.size) == (3, None, 8)


def test_half_precision_input(write_model: Write) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    model = opened(write_model("float16[n, 3, 8, 8] x", "float16[n, 3] out"))
    np.testing.assert_allclose(model.runtime.logits(images), channel_means(images), rtol=2e-2, atol=2e-3)


def test_a_number_of_classes_that_the_file_does_not_say(write_model: Write) -> None:
    assert opened(write_model("float[n, 3, 8, 8] x", "float[n, classes] out")).num_classes == 3


def test_a_grey_input(write_model: Write) -> None:
    model = opened(write_model("float[n, 1, 6, 6] x", "float[n, 1] out"))
    images = np.full((1, 6, 6, 1), 255, np.uint8)
    assert model.preprocessing.channels == 1
    np.testing.assert_allclose(model.runtime.logits(images), [[(1 - 0.5) / 0.25]], rtol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("uint8[n, 3, 8, 8] x", {"before": "ready = Cast <to = 1> (x)"}, "its input is tensor(uint8)"),
        ("float[n, 3, 64] x", {"axes": "2"}, "not [batch, channels, height, width], float"),
        ("float[n, 8, 8, 3] x", {}, "8 x 3 pixels; square images are run"),
        ("float[n, 5, 8, 8] x", {}, "5 channels"),
        ("float[n, 3, 8, 8] x,  float[n, 3, 8, 8] y", {}, "2 inputs"),
    ],
)
def test_an_input_of_another_kind_is_refused(
    write_model: Write, inputs: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError) as refusal:
        opened(write_model(inputs, "float[n, k] out", **options))
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert refusal.value.exit_code == 2


def test_an_answer_that_is_not_one_row_an_image_is_refused(write_model: Write) -> None:
    with pytest.raises(UserError, match=r"m\.onnx: .*answers|does not run"):
        opened(write_model("float[n, 3, 8, 8] x", "float[a, b] out")).runtime.logits(np.zeros((2, 9, 9, 3), np.uint8))


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x08\x12\x07pytorch"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.onnx: a broken ONNX file") as refusal:
        opened(tmp_path / "m.onnx")
    assert len(str(refusal.value).splitlines()) == 1


def test_a_truncated_file_is_refused(write_model: Write) -> None:
    path = write_model()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="a broken ONNX file"):
        opened(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.onnx: no such file"):
        opened(tmp_path / "gone.onnx")


def test_a_gpu_that_is_not_there(write_model: Write) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has a GPU")
    path = str(write_model())
    with pytest.raises(UserError, match="onnxruntime-gpu"):
        open_onnx(path, choose, DeviceWish("GPU", asked=True))
    assert open_onnx(path, choose, DeviceWish("GPU")).num_classes == 3  # a wish of a recipe only


@pytest.mark.parametrize("inputs", ["float[n, 3, 8, 8] data", "float[4, 3, 8, 8] x", "float[n, c, h, w] x"])
@pytest.mark.parametrize("count", [1, 5])
def test_the_other_engine_answers_the_same(
    write_model: Write, inputs: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    batch = inputs.partition("[")[2].partition(",")[0]
    path = write_model(inputs, f"float[{batch}, 3] out")
    model = open_onnx(str(path), choose, DeviceWish("CPU", engine="openvino"))
    np.testing.assert_allclose(model.runtime.logits(images), channel_means(images), rtol=1e-5, atol=1e-6)
    assert "OpenVINO" in capsys.readouterr().err


def test_the_other_engine_has_no_gpu(write_model: Write) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match="openvino runs on the CPU"):
        open_onnx(str(write_model()), choose, DeviceWish("GPU", asked=True, engine="openvino"))


def test_the_other_engine_is_not_installed(write_model: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"pip install 'convmixer\[openvino\]'"):
        open_onnx(str(write_model()), choose, DeviceWish("CPU", engine="openvino"))
