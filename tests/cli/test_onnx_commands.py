"""`eval-onnx` and `infer-onnx`: files of others, the class contract, wrong use, and no torch."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image
from tests.conftest import Command
from tests.project import ROOT


def foreign_model(path: Path, inputs: str = "float[1, 3, 10, 10] pixels", classes: int = 3) -> Path:
    """A model of others, without a record: its logits are the means of red, green and blue, in this order."""
    none = ", ".join(["-9"] * (classes - 3))
    fill = f"fill = Constant <value = float[1, {classes - 3}] {{{none}}}> ()" if none else ""
    last = "logits = Concat <axis = 1> (means, fill)" if none else "logits = Identity (means)"
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        colours ({inputs}) => (float[1, {classes}] logits)
        {{
            means = ReduceMean <axes = [2, 3], keepdims = 0> (pixels)
            {fill}
            {last}
        }}
    """)
    onnx.save_model(model, path)
    return path


def with_softmax(path: Path, source: Path) -> Path:
    """The model of `source`, and a softmax behind it."""
    model = onnx.load(str(source))
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    model.graph.output[0].name = "probabilities"
    onnx.save_model(model, path)
    return path


def draw(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (14, 11), colour).save(path)


@pytest.fixture
def colours(here: Path) -> Path:
    """Images of three classes, whose sorted names are in the order of the colours; one lies in the wrong folder."""
    for index, name in enumerate(("a red", "b green", "c blue")):
        for number in range(3):
            red, green, blue = (200 if c == index else 20 for c in range(3))
            draw(here / "val" / name / f"{number}.png", (red, green, blue))
    draw(here / "val/a red/wrong.png", (20, 20, 200))
    return here / "val"


def test_a_model_of_others(convmixer: Command, here: Path, colours: Path) -> None:
    foreign_model(here / "only.onnx")
    done = convmixer("eval-onnx", colours, "-m", "CPU", "--prefetch=2", "--batch_size=4")
    assert (done.code, done.out) == (0, "eval results: {'Top1-Acc': 0.9, 'Top5-Acc': 1.0}\n"), done.err
    assert "10 images, " in done.err
    assert "img/s" in done.err


def test_answers_of_a_model_of_others(convmixer: Command, here: Path, colours: Path) -> None:
    foreign_model(here / "only.onnx")
    done = convmixer("infer-onnx", colours / "b green", "--format=class")
    files = [str(colours / "b green" / f"{number}.png") for number in range(3)]
    assert (done.code, done.out) == (0, "".join(f"{file} (class: 1)\n" for file in files))
    assert json.loads((here / "predictions.json").read_text()) == dict.fromkeys(files, 1)


def test_a_softmax_in_the_file_is_not_taken_twice(convmixer: Command, here: Path, colours: Path) -> None:
    plain = foreign_model(here / "plain.onnx")
    soft = with_softmax(here / "soft.onnx", plain)
    answers, losses = [], []
    for file in (plain, soft):
        done = convmixer("infer-onnx", colours / "b green", "--onnx_path", file, "--format=full")
        assert done.code == 0, done.err
        assert ("answers with probabilities, as of a Softmax" in done.err) == (file == soft)
        found = json.loads((here / "predictions.json").read_text())
        answers.append([entry["probability"] for answer in found.values() for entry in answer["top"]])
        losses.append(convmixer("eval", "--pretrained", file, "--data_url", here, "--batch_size=4").out)
    # By hand: red 20, green 200, blue 20 of 255, by ImageNet's mean and deviation.
    logits = [(20 / 255 - 0.485) / 0.229, (200 / 255 - 0.456) / 0.224, (20 / 255 - 0.406) / 0.225]
    powers = [math.exp(logit) for logit in logits]
    by_hand = sorted((power / sum(powers) for power in powers), reverse=True)
    assert answers[0] == pytest.approx(by_hand * 3, abs=1e-6)
    assert answers[1] == pytest.approx(by_hand * 3, abs=1e-6)
    assert losses[0] == losses[1]
    assert "'Top1-Acc': 0.9" in losses[0]


def test_an_output_that_is_asked_for(convmixer: Command, here: Path, colours: Path) -> None:
    model = onnx.load(str(foreign_model(here / "only.onnx")))
    model.graph.node.append(onnx.helper.make_node("Neg", ["logits"], ["opposite"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("opposite", onnx.TensorProto.FLOAT, [1, 3]))
    onnx.save_model(model, here / "only.onnx")
    done = convmixer("infer-onnx", colours / "b green/0.png", "--onnx_output=opposite", "--format=class")
    assert (done.code, done.out.endswith("(class: 0)\n")) == (0, True)
    done = convmixer("eval-onnx", colours, "--onnx_output=gone")
    assert (done.code, "has no output gone, but logits, opposite" in done.error) == (2, True)


def test_answers_that_are_no_numbers(convmixer: Command, here: Path, colours: Path) -> None:
    model = onnx.load(str(foreign_model(here / "only.onnx")))
    model.graph.node[-1].op_type = "Log"  # of negative numbers
    onnx.save_model(model, here / "only.onnx")
    done = convmixer("eval-onnx", colours)
    assert (done.code, done.out) == (1, "eval results: {'Top1-Acc': 0.0, 'Top5-Acc': 0.0}\n")
    assert "10 of 10 images got logits that are no numbers; they count as wrong" in done.err
    assert "Warning" not in done.err
    done = convmixer("infer-onnx", colours / "a red/0.png")
    assert (done.code, done.out) == (1, "")
    assert "not classified: " in done.err
    assert json.loads((here / "predictions.json").read_text()) == {}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' * 100_000])
def test_a_record_nested_without_end_is_refused(convmixer: Command, here: Path, colours: Path, text: str) -> None:
    model = onnx.load(str(foreign_model(here / "only.onnx")))
    model.metadata_props.add(key="convmixer", value=text)
    onnx.save_model(model, here / "only.onnx")
    done = convmixer("infer-onnx", colours / "a red")
    assert done.code == 2
    assert done.error.endswith("only.onnx: a damaged ONNX file: its record is malformed")


def test_a_loop_is_refused_before_anything_is_written(convmixer: Command, here: Path, colours: Path) -> None:
    foreign_model(here / "only.onnx")
    content = (here / "only.onnx").read_bytes()
    (here / "only.onnx").write_bytes(
        content.replace(b"Identity", b"Loop\x2a\x02\x0a\x00").replace(b"\x22\x08Loop", b"\x22\x04Loop")
    )
    done = convmixer("infer-onnx", colours / "a red")
    assert (done.code, "holds a Loop" in done.error) == (2, True)
    assert not (here / "predictions.json").exists()


def test_which_file_is_meant_when_none_is_named(convmixer: Command, here: Path, colours: Path) -> None:
    done = convmixer("eval-onnx", colours)
    assert (done.code, "there is none" in done.error) == (2, True)
    for name in ("one.onnx", "two.onnx"):
        foreign_model(here / name)
    done = convmixer("infer-onnx", colours / "a red")
    assert done.code == 2
    assert "there are 2 (one.onnx, two.onnx" in done.error


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "DATASET: a folder of images"),
        (["gone", "--onnx_path=three.onnx"], 2, "DATASET: there is no folder gone"),
        (["val/a red", "--onnx_path=three.onnx"], 2, "holds no folders of classes"),
        (["val", "--onnx_path=gone.onnx"], 2, "gone.onnx: no such file"),
        (["val", "--onnx_path=None"], 2, "there are 2"),
        (["val", "--onnx_path=four.onnx"], 1, "answers in 4 classes and does not name them, val has 3"),
        (["val", "--onnx_path=val/a red/0.png"], 2, "is not an ONNX file"),
        (["val", "--onnx_path=three.onnx", "--image_size=12"], 2, "takes images of 10 x 10 pixels"),
        (["val", "--onnx_path=three.onnx", "-m", "TPU"], 2, "'CPU' or 'GPU'"),
    ],
)
def test_wrong_use(convmixer: Command, here: Path, colours: Path, words: list[str], code: int, message: str) -> None:
    foreign_model(here / "three.onnx")
    foreign_model(here / "four.onnx", classes=4)
    done = convmixer("eval-onnx", *words)
    assert done.code == code
    assert message in done.error
    assert len(done.error.splitlines()) <= 2


def test_no_images(convmixer: Command, here: Path) -> None:
    foreign_model(here / "only.onnx")
    (here / "empty").mkdir()
    done = convmixer("infer-onnx", "empty")
    assert (done.code, "holds no images (.jpg, " in done.error) == (2, True)


def test_a_bad_image_is_named_and_not_scored(convmixer: Command, here: Path, colours: Path) -> None:
    foreign_model(here / "only.onnx")
    (colours / "a red/wrong.png").write_bytes(b"no image")
    done = convmixer("eval-onnx", colours)
    assert (done.code, done.out) == (1, "eval results: {'Top1-Acc': 1.0, 'Top5-Acc': 1.0}\n")
    assert "wrong.png" in done.err


@pytest.fixture
def named(here: Path, colours: Path) -> Path:
    """A model of three named classes, in the form of ours but with the weights of `foreign_model`."""
    from convmixer.arch import architecture
    from convmixer.data.classes import ClassMap
    from convmixer.data.preprocessing import Preprocessing
    from convmixer.metadata import KEY, ModelMetadata, encode_metadata

    model = onnx.load(str(foreign_model(here / "named.onnx", "float[1, 3, 10, 10] pixels")))
    names = ClassMap(("a red", "b green", "c blue"))
    metadata = ModelMetadata(architecture("convmixer_8_1", num_classes=3), names, Preprocessing(size=10, crop_pct=1.0))
    model.metadata_props.add(key=KEY, value=encode_metadata(metadata))
    onnx.save_model(model, here / "named.onnx")
    return here / "named.onnx"


def test_a_subset_of_the_classes_counts_by_their_names(convmixer: Command, colours: Path, named: Path) -> None:
    shutil.rmtree(colours / "a red")
    done = convmixer("eval-onnx", colours, "--onnx_path", named)
    assert (done.code, done.out) == (0, "eval results: {'Top1-Acc': 1.0, 'Top5-Acc': 1.0}\n"), done.err


def test_other_class_names_are_refused_with_both_lists(convmixer: Command, colours: Path, named: Path) -> None:
    (colours / "c blue").rename(colours / "c navy")
    done = convmixer("eval-onnx", colours, "--onnx_path", named)
    assert done.code == 1
    assert "has a class 'c navy'" in done.error
    assert "a red, b green, c navy; " in done.error
    assert done.error.endswith("a red, b green, c blue")
    assert len(done.error.splitlines()) == 2


def test_a_damaged_record_is_refused(convmixer: Command, colours: Path, named: Path) -> None:
    named.write_bytes(named.read_bytes().replace(b"b green", b"b grown"))
    done = convmixer("eval-onnx", colours, "--onnx_path", named)
    assert (done.code, "its SHA-256 does not fit its content" in done.error) == (2, True)


@pytest.mark.parametrize("wrapper", ["eval_onnx.py", "infer_onnx.py"])
def test_the_wrappers_need_no_torch(here: Path, colours: Path, wrapper: str) -> None:
    foreign_model(here / "only.onnx")
    data = "val" if wrapper == "eval_onnx.py" else "val/c blue/0.png"
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = None\n"  # importing it raises ImportError
        f"sys.argv = ['{wrapper}', '{data}']\n"
        f"runpy.run_path({str(ROOT / wrapper)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = "eval results: {'Top1-Acc': 0.9, 'Top5-Acc': 1.0}" if wrapper == "eval_onnx.py" else f"{data} (class: 2)"
    assert done.stdout == f"{expected}\n"


@pytest.fixture
def shades(here: Path) -> Path:
    """Twelve classes, 0 to 11, of one grey image each, and a nameless model that tells them: `shades.onnx`."""
    for number in range(12):
        draw(here / "val" / str(number) / "0.png", (20 * number,) * 3)
    # ImageNet's mean and deviation are taken back, then the nearest of the twelve levels wins.
    levels = ", ".join(str(20 * number / 255) for number in range(12))
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        shades (float[1, 3, 10, 10] pixels) => (float[1, 12] logits)
        <float[1] mean = {{0.449}}, float[1] std = {{0.226}}, float[1, 12] levels = {{{levels}}}>
        {{
            grey = ReduceMean <axes = [1, 2, 3], keepdims = 0> (pixels)
            scaled = Mul (grey, std)
            level = Add (scaled, mean)
            column = Unsqueeze (level, axes)
            away = Sub (levels, column)
            squared = Mul (away, away)
            logits = Neg (squared)
        }}
    """)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    onnx.save_model(model, here / "shades.onnx")
    return here / "val"


def test_classes_that_are_numbers_are_the_outputs_of_a_nameless_model(convmixer: Command, shades: Path) -> None:
    """Sorted as text, 10 comes before 2, and only 0 and 1 would count: 16.7 %."""
    norm = ["--mean", "0.449", "0.449", "0.449", "--std", "0.226", "0.226", "0.226"]
    message = "the weights name no classes; the data's, 0 to 11, are taken for their outputs by their numbers"
    done = convmixer("eval-onnx", shades, *norm)
    assert (done.code, done.out) == (0, "eval results: {'Top1-Acc': 1.0, 'Top5-Acc': 1.0}\n"), done.err
    assert message in done.err
    done = convmixer("eval", "--pretrained=shades.onnx", "--data_url", shades.parent, *norm)
    assert "'Top1-Acc': 1.0" in done.out, done.err
    assert message in done.err
    # One name that is no number of these, and they are names like any other.
    (shades / "11").rename(shades / "011")
    assert message not in convmixer("eval-onnx", shades, *norm).err
