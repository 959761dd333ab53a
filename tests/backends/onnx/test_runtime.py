"""ONNX files of others: any batch, input name and size that can be run; all else is refused in a line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from tests.backends.onnx.conftest import Write

from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.onnx.opening import open_onnx
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.metrics.score import Score, softmax

CPU = DeviceRequest("CPU")


def choose(record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
    assert record is None
    return Preprocessing(size=size or 8) if channels == 3 else Preprocessing(size=size or 8, mean=(0.5,), std=(0.25,))


def opened(path: Path) -> ModelFile:
    return open_onnx(str(path), choose, CPU)


LAYOUTS = {
    "float[n, 8, 8, 3] x": "1, 2",
    "float[4, 8, 8, 3] x": "1, 2",
    "float[n, h, w, 3] x": "1, 2",
    "float16[n, 8, 8, 3] x": "1, 2",
    "uint8[n, 8, 8, 3] x": "1, 2",
    "uint8[2, 3, 8, 8] x": "2, 3",
    "uint8[n, h, w, 3] x": "1, 2",
}


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


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("inputs", LAYOUTS)
def test_channels_last_and_pixels_as_they_are(write_model: Write, inputs: str, engine: str) -> None:
    """float is normalised by us, uint8 is given 0 to 255 and normalised by nobody here."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    kind, batch = inputs.partition("[")[0], inputs.partition("[")[2].partition(",")[0]
    before = "ready = Cast <to = 1> (x)" if kind == "uint8" else ""
    answers = "float" if kind == "uint8" else kind
    path = write_model(inputs, f"{answers}[{batch}, 3] out", before=before, axes=LAYOUTS[inputs])
    model = open_onnx(str(path), choose, DeviceRequest("CPU", engine=engine))
    expected = images.astype(np.float64).mean(axis=(1, 2)) if kind == "uint8" else channel_means(images)
    rtol, atol = (2e-2, 4e-3) if kind == "float16" else (1e-5, 1e-5)
    np.testing.assert_allclose(model.runtime.logits(images), expected, rtol=rtol, atol=atol)


def test_normalising_pixels_that_are_taken_as_they_are(write_model: Write) -> None:
    path = write_model("uint8[n, 8, 8, 3] x", "float[n, 3] out", before="ready = Cast <to = 1> (x)", axes="1, 2")
    with pytest.raises(UserError, match="takes uint8 pixels as they are; --mean and --std are for float input"):
        open_onnx(str(path), lambda record, channels, size=None: Preprocessing(size=8, mean=(0.5,) * 3), CPU)


SEVERAL = """
    <ir_version: 8, opset_import: ["": 17]>
    several (float[n, 3, 8, 8] x)
        => (float[n, 3, 8, 8] features, float[n, 3] means, float[n, 3, 1, 1] most, int64[n] best)
    {
        features = Identity(x)
        means = ReduceMean <axes = [2, 3], keepdims = 0> (x)
        most = ReduceMax <axes = [2, 3], keepdims = 1> (x)
        best = ArgMax <axis = 1, keepdims = 0> (means)
    }
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_which_of_several_outputs(tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first that can be [images, classes], unless another is named; a map of one position is one too."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    onnx.save_model(onnx.parser.parse_model(SEVERAL), tmp_path / "m.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    largest = Preprocessing().normalise(images).max(axis=(2, 3))
    for wanted, expected in ((None, channel_means(images)), ("means", channel_means(images)), ("most", largest)):
        request = DeviceRequest("CPU", engine=engine, output=wanted)
        found = open_onnx(str(tmp_path / "m.onnx"), choose, request).runtime.logits(images)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        said = "has the outputs features, means, most, best; means is taken, see --onnx_output"
        assert (said in capsys.readouterr().err) == (wanted is None)


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("gone", 2, "--onnx_output: .*m.onnx has no output gone, but features, means, most, best"),
        ("features", 2, r"answers 1 images with float32 \(1, 3, 8, 8\), not with logits"),
        ("best", 2, r"answers 1 images with int64 \(1,\), not with logits"),
    ],
)
def test_outputs_that_are_no_logits(tmp_path: Path, output: str, code: int, message: str) -> None:
    onnx.save_model(onnx.parser.parse_model(SEVERAL), tmp_path / "m.onnx")
    with pytest.raises(UserError, match=message) as refusal:
        open_onnx(str(tmp_path / "m.onnx"), choose, DeviceRequest("CPU", output=output))
    assert refusal.value.exit_code == code


def ending_in(tmp_path: Path, nodes: str, kind: str = "float") -> ModelFile:
    """A model whose logits are `means`, and what follows them."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        ending ({kind}[n, 3, 8, 8] x) => ({kind}[n, 3] y) <int64[2] form = {{-1, 3}}>
        {{
            means = ReduceMean <axes = [2, 3], keepdims = 0> (x)
            {nodes}
        }}
    """)
    onnx.save_model(model, tmp_path / "m.onnx")
    return opened(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("y = Softmax <axis = 1> (means)", "probabilities, as of a Softmax"),
        ("p = Softmax <axis = -1> (means) q = Identity(p) y = Reshape(q, form)", "probabilities, as of a Softmax"),
        (
            "a = Constant <value = int64[1] {1}> () e = Exp(means) t = ReduceSum <keepdims = 1> (e, a) y = Div(e, t)",
            "probabilities, as of a Softmax",
        ),
        ("y = LogSoftmax <axis = 1> (means)", None),
        ("y = Identity(means)", None),
        ("y = Relu(means)", None),
    ],
)
def test_probabilities_are_logarithms_again(
    tmp_path: Path, nodes: str, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss and the probabilities of the logits themselves, by hand, whatever a file ends in."""
    model = ending_in(tmp_path, nodes)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    logits, labels = channel_means(images), np.array([0, 1, 2, 0])
    if "Relu" in nodes:
        logits = np.maximum(logits, 0)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = model.runtime.logits(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(softmax(found), probabilities, rtol=1e-5)
    score = Score()
    score.add(found, labels)
    assert score.loss_sum == pytest.approx(-np.log(probabilities[np.arange(4), labels]).sum(), rel=1e-5)
    err = capsys.readouterr().err
    assert (said in err) if said else (err == "")


def test_a_sigmoid_is_undone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    found = ending_in(tmp_path, "y = Sigmoid(means)").runtime.logits(images)
    np.testing.assert_allclose(found, channel_means(images), rtol=1e-4, atol=1e-5)
    assert "ends in a Sigmoid" in capsys.readouterr().err


def test_probabilities_of_half_precision_and_of_certainty(tmp_path: Path) -> None:
    """A probability that is 0 in its type costs a finite loss: -log of the least number of float32, 103.28."""
    scaled = "f = Constant <value = float[1] {60}> () h = Cast <to = 10> (f) s = Mul(means, h)"
    model = ending_in(tmp_path, f"{scaled} y = Softmax(s)", "float16")
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[..., 1] = 255
    found = model.runtime.logits(images)
    assert found[0].argmax() == 1
    assert softmax(found)[0, 1] == pytest.approx(1)
    score = Score()
    score.add(found, np.array([0]))
    assert score.loss_sum == pytest.approx(103.28, abs=0.01)
    assert (score.top5, score.not_finite) == (1, 0)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    model = ending_in(tmp_path, "r = Sqrt(means) y = Softmax(r)")  # of what is darker than the mean
    score = Score()
    score.add(model.runtime.logits(np.zeros((2, 8, 8, 3), np.uint8)), np.array([0, 1]))
    assert (score.count, score.not_finite, score.top1) == (2, 2, 0)


@pytest.mark.parametrize("classes", ["0", "k"])
def test_a_file_of_no_classes(tmp_path: Path, classes: str) -> None:
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        empty (float[n, 3, 8, 8] x) => (float[n, {classes}] y) <int64[1] a = {{0}}, int64[1] axis = {{1}}>
        {{ m = ReduceMean <axes = [2, 3], keepdims = 0> (x)  y = Slice(m, a, a, axis) }}
    """)
    onnx.save_model(model, tmp_path / "m.onnx")
    with pytest.raises(UserError, match="answers in 0 classes"):
        opened(tmp_path / "m.onnx")


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
        ("int32[n, 3, 8, 8] x", {"before": "ready = Cast <to = 1> (x)"}, "its input is tensor(int32)"),
        ("float[n, 3, 64] x", {"axes": "2"}, "not [batch, channels, height, width] or"),
        ("float[n, 8, 6, 3] x", {}, "8 x 6 pixels; square images are run"),
        ("float[n, 3, 8, 6] x", {}, "8 x 6 pixels; square images are run"),
        ("float[n, 3, 5000, 5000] x", {}, "5000 x 5000 pixels; up to 4096 are run"),
        ("float[9000000, 3, 8, 8] x", {}, "is a batch of more than 1 GiB"),
        ("float[n, 5, 8, 8] x", {}, "5 channels"),
        ("float[n, 3, 8, 8] x,  float[n, 3, 8, 8] y", {}, "2 inputs"),
    ],
)
def test_an_input_of_another_form_is_refused(
    write_model: Write, inputs: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError) as refusal:
        opened(write_model(inputs, "float[n, k] out", **options))
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert refusal.value.exit_code == 2


def test_an_answer_that_is_not_one_row_per_image_is_refused(write_model: Write) -> None:
    with pytest.raises(UserError, match=r"m\.onnx: .*answers|does not run"):
        opened(write_model("float[n, 3, 8, 8] x", "float[a, b] out")).runtime.logits(np.zeros((2, 9, 9, 3), np.uint8))


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x08\x12\x07pytorch"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.onnx: a broken ONNX file") as refusal:
        opened(tmp_path / "m.onnx")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", [b"data", b"out"])
def test_names_that_are_no_text_are_refused(write_model: Write, name: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_model()
    path.write_bytes(path.read_bytes().replace(name, name[:-1] + b"\xf3"))
    with pytest.raises(UserError, match=r"m\.onnx: a broken ONNX file"):
        opened(path)
    assert capfd.readouterr() == ("", "")


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
        open_onnx(path, choose, DeviceRequest("GPU", is_required=True))
    assert open_onnx(path, choose, DeviceRequest("GPU")).num_classes == 3  # a wish of a recipe only


@pytest.mark.parametrize("inputs", ["float[n, 3, 8, 8] data", "float[4, 3, 8, 8] x", "float[n, c, h, w] x"])
@pytest.mark.parametrize("count", [1, 5])
def test_the_other_engine_answers_the_same(
    write_model: Write, inputs: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    batch = inputs.partition("[")[2].partition(",")[0]
    path = write_model(inputs, f"float[{batch}, 3] out")
    model = open_onnx(str(path), choose, DeviceRequest("CPU", engine="openvino"))
    np.testing.assert_allclose(model.runtime.logits(images), channel_means(images), rtol=1e-5, atol=1e-6)
    assert "OpenVINO" in capsys.readouterr().err


def test_the_other_engine_has_no_gpu(write_model: Write) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match="openvino runs on the CPU"):
        open_onnx(str(write_model()), choose, DeviceRequest("GPU", is_required=True, engine="openvino"))


def test_the_other_engine_is_not_installed(write_model: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"pip install 'convmixer\[openvino\]'"):
        open_onnx(str(write_model()), choose, DeviceRequest("CPU", engine="openvino"))
