"""What stands before the head: features and class-activation maps of weights and of ONNX files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from tests.networks import randomise_batch_norm

from convmixer import create_model
from convmixer.backends.inside import Inside
from convmixer.backends.model_file import DeviceRequest
from convmixer.backends.opening import open_model
from convmixer.backends.torch_inside import TorchInside
from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.exporters.onnx import write_onnx
from convmixer.exporters.openvino import write_ir
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer

INPUTS = Preprocessing(size=24, crop_pct=1.0)
CROPS = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
CLASSES = np.array([0, 3, 2, 1, 3])


@pytest.fixture(scope="module")
def model() -> ConvMixer:
    torch.manual_seed(0)
    made = create_model("convmixer_16_2", kernel_size=3, patch_size=4, num_classes=4)
    randomise_batch_norm(made)
    return made


def of_weights(model: ConvMixer) -> Inside:
    return TorchInside(model, INPUTS, lambda headless: TorchRuntime(headless, INPUTS, torch.device("cpu")))


def of_onnx(path: Path, model: ConvMixer, **described: object) -> Inside:
    metadata = ModelMetadata(model.arch, None, INPUTS, **described)  # type: ignore[arg-type]
    write_onnx(model, metadata, path, lambda: iter([CROPS]))
    return opened(path)


def opened(path: Path) -> Inside:
    def choose(record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
        return record or INPUTS

    return open_model(str(path), choose, DeviceRequest("CPU")).inside()


@torch.no_grad()
def expected(model: ConvMixer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, logits and maps by torch's own operations."""
    images = torch.from_numpy(INPUTS.normalise(CROPS))
    maps = model.feature_maps(images)
    heat = torch.stack(
        [(maps[i] * model.head.weight[c][:, None, None]).sum(0) + model.head.bias[c] for i, c in enumerate(CLASSES)]
    )
    return maps.mean((2, 3)).numpy(), model(images).numpy(), heat.numpy()


def check(inside: Inside, model: ConvMixer, tolerance: float) -> None:
    features, logits, maps = expected(model)
    found_features, found_logits = inside.features(CROPS)
    near = partial(np.testing.assert_allclose, rtol=0)
    near(found_features, features, atol=tolerance * np.abs(features).max())
    near(found_logits, logits, atol=tolerance * np.abs(logits).max())
    found = inside.class_maps(CROPS, CLASSES)
    assert found.shape == (5, 6, 6)
    near(found, maps, atol=tolerance * np.abs(maps).max())


def test_weights(model: ConvMixer) -> None:
    check(of_weights(model), model, 1e-5)


@pytest.mark.parametrize(
    ("described", "tolerance"),
    [
        ({}, 1e-5),
        ({"embed_preprocess": True}, 1e-5),
        ({"precision": "fp16"}, 1e-2),
        ({"precision": "int8"}, 0.1),
    ],
    ids=["fp32", "embedded preprocessing", "fp16", "int8"],
)
def test_onnx_files(tmp_path: Path, model: ConvMixer, described: dict[str, object], tolerance: float) -> None:
    check(of_onnx(tmp_path / "m.onnx", model, **described), model, tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.1)])
def test_openvino_files(tmp_path: Path, model: ConvMixer, precision: str, tolerance: float) -> None:
    pytest.importorskip("openvino")
    metadata = ModelMetadata(model.arch, None, INPUTS, precision=precision)  # type: ignore[arg-type]
    write_ir(model, metadata, tmp_path / "m.xml", lambda: iter([CROPS]))
    check(opened(tmp_path / "m.xml"), model, tolerance)


def graph_of_others(path: Path, head: str) -> Path:
    """Of 3 channels, averaged to 4 x 4 positions, with a head of others behind it."""
    proto = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 18]>
        net (float[N, 3, 24, 24] pixels) => (float[N, 4] logits)
        <float[4, 3] weight = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 0, 2}}, float[4] bias = {{1, 0, 2, 0}},
         int64[2] flat = {{0, -1}}>
        {{
            maps = AveragePool <kernel_shape = [6, 6], strides = [6, 6]> (pixels)
            {head}
        }}
    """)
    onnx.save_model(proto, path)
    return path


def test_files_of_others(tmp_path: Path) -> None:
    head = """pooled = GlobalAveragePool (maps)  row = Flatten (pooled)
              logits = Gemm <transB = 1> (row, weight, bias)"""
    weight, bias = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 0, 2]]), np.array([1, 0, 2, 0])
    pixels = INPUTS.normalise(CROPS).reshape(5, 3, 4, 6, 4, 6).mean(axis=(3, 5))
    inside = opened(graph_of_others(tmp_path / "m.onnx", head))
    maps = np.einsum("nd,ndhw->nhw", weight[CLASSES], pixels) + bias[CLASSES][:, None, None]
    np.testing.assert_allclose(inside.class_maps(CROPS, CLASSES), maps, rtol=1e-4, atol=1e-4)
    features, _ = inside.features(CROPS)
    np.testing.assert_allclose(features, pixels.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "head",
    [
        "wide = ReduceMean <keepdims = 1> (maps, one)  row = Flatten (wide)  logits = Slice (row, zero, four, one)",
        """row = Reshape (maps, flat)  cut = Slice (row, zero, three, one)
           logits = Gemm <transB = 1> (cut, weight, bias)""",
        """pooled = GlobalAveragePool (maps)  row = Flatten (pooled)  hidden = Gemm <transB = 1> (row, weight, bias)
           steep = Relu (hidden)  logits = Identity (steep)""",
        """pooled = GlobalAveragePool (maps)  row = Flatten (pooled)  hidden = Gemm <transB = 1> (row, weight, bias)
           logits = Softmax (hidden)""",
    ],
    ids=["no head", "no pooling", "a rectified head", "probabilities"],
)
def test_files_whose_inside_cannot_be_told(tmp_path: Path, head: str) -> None:
    path = graph_of_others(tmp_path / "m.onnx", head)
    proto = onnx.load(str(path))
    for name, value in (("zero", 0), ("one", 1), ("three", 3), ("four", 4)):
        proto.graph.initializer.append(onnx.helper.make_tensor(name, 7, [1], [value]))
    onnx.save_model(proto, path)
    with pytest.raises(UserError, match=r"cannot be told|does not pool and then|head is not linear"):
        opened(path).class_maps(CROPS, CLASSES)
