"""`export`: what it writes and leaves, and that the exported file scores and answers as the weights do."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Command, Done, Run, run_command

from convmixer.data.sources.digits import open_digits


def results(done: Done) -> dict[str, float]:
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    return ast.literal_eval(line.removeprefix("eval results: "))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, toy: Path, toy_run: Run) -> Path:
    """The toy run's averaged weights as an ONNX file, made once; tests must not change it."""
    folder = tmp_path_factory.mktemp("exported")
    done = run_command(
        "export", "--pretrained", toy_run.best / "best.safetensors", "--data_url", toy, "--output", folder
    )
    assert done.code == 0, done.err
    assert done.out == f"{folder / 'convmixer_8_2.onnx'}\n"
    return folder / "convmixer_8_2.onnx"


def test_what_is_written(exported: Path) -> None:
    assert sorted(entry.name for entry in exported.parent.iterdir()) == [
        "convmixer_8_2.onnx",
        "convmixer_8_2.onnx.parity.json",
    ]
    facts = json.loads((exported.parent / "convmixer_8_2.onnx.parity.json").read_text())
    assert facts["images"] == 13, "all that the evaluation split has"
    assert facts["difference"] < facts["tolerance"] == 1e-5
    assert facts["agreement"] == 1


def test_without_output_it_is_named_after_the_network(convmixer: Command, here: Path, toy: Path, toy_run: Run) -> None:
    weights = toy_run.best / "best.safetensors"
    words = ["--config=digits", "--file_format=ONNX", "--pretrained", weights, "--arch=convmixer_8_2"]
    shape = ["--kernel_size=3", "--patch_size=2", "--num_classes=3", "--activation=gelu"]
    done = convmixer("export", *words, *shape, "--data_url", toy, "--set=ImageNet", "--parity_images=4")
    assert (done.code, done.out) == (0, "convmixer_8_2.onnx\n"), done.err
    assert "same top-1 class" in done.err
    assert json.loads((here / "convmixer_8_2.onnx.parity.json").read_text())["images"] == 4


def test_a_file_that_differs_too_much_is_not_left(convmixer: Command, here: Path, toy_run: Run) -> None:
    done = convmixer("export", "--pretrained", toy_run.best / "best.safetensors", "--tolerance=1e-12")
    assert done.code == 1
    assert "more than --tolerance 1e-12" in done.error
    assert "built-in digits" in done.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--pretrained"),
        (["--pretrained=gone.safetensors"], "gone.safetensors: no such file"),
        (
            ["--pretrained=W", "--file_format=MINDIR", "--precision=int8"],
            "--precision: MINDIR files are written in fp32, not in int8",
        ),
        (
            ["--pretrained=W", "--file_format=AIR", "--embed_preprocess"],
            "is for ONNX or WEB, not for AIR",
        ),
        (["--pretrained=W", "--file_format=MINDIR", "--opset=17"], "--opset: is for ONNX or WEB, not for MINDIR"),
        (["--pretrained=W", "--file_format=ONNX", "--opset=12"], "--opset: should be greater than or equal to 13"),
        (["--pretrained=W", "--file_format=ONNX", "--embed_preprocess", "--opset=17"], "needs --opset 18 or more"),
        (["--pretrained=W", "--output=model.bin"], "must be a folder, or end in .onnx"),
        (["--pretrained=W", "--output=gone/model.onnx"], "there is no folder gone"),
        (["--pretrained=W", "--data_url=gone"], "--data_url: there is no folder gone"),
        (["--pretrained=W", "--embed_preprocess", "--interpolation=lanczos"], "not lanczos"),
        (["--pretrained=W", "--arch=convmixer_8_3"], "not of convmixer_8_3"),
        (["--pretrained=W", "--tolerance=0"], "--tolerance"),
    ],
)
def test_wrong_use(convmixer: Command, here: Path, toy_run: Run, words: list[str], message: str) -> None:
    weights = str(toy_run.best / "best.safetensors")
    done = convmixer("export", *(word.replace("=W", f"={weights}") for word in words))
    assert done.code == 2
    assert message in done.error
    assert len(done.error.splitlines()) <= 2
    assert list(here.iterdir()) == []


def test_the_exported_file_scores_as_the_weights(convmixer: Command, toy: Path, toy_run: Run, exported: Path) -> None:
    data = ["--data_url", toy, "--arch=convmixer_8_2"]
    weights = results(convmixer("eval", *data, "--pretrained", toy_run.best / "best.safetensors"))
    assert results(convmixer("eval", *data, "--pretrained", exported)) == pytest.approx(weights, abs=2e-4)
    of_onnx = results(convmixer("eval-onnx", toy / "val", "--onnx_path", exported))
    assert of_onnx == {name: weights[name] for name in ("Top1-Acc", "Top5-Acc")}


def test_the_exported_file_answers_as_the_weights(
    convmixer: Command, here: Path, toy: Path, toy_run: Run, exported: Path
) -> None:
    photos = toy / "val/red"
    answers = [
        convmixer("infer", photos, "--checkpoint", toy_run.best / "best.safetensors", "--format=class"),
        convmixer("infer", photos, "--checkpoint", exported, "--format=class"),
        convmixer("infer-onnx", photos, "--onnx_path", exported, "-o", "answers.json", "--format=full"),
    ]
    assert [done.code for done in answers] == [0, 0, 0]
    assert answers[0].out == answers[1].out
    classes = [int(line.split("class: ")[1].rstrip(")")) for line in answers[0].out.splitlines()]
    written = json.loads((here / "answers.json").read_text())
    assert [answer["class"] for answer in written.values()] == classes
    assert {answer["name"] for answer in written.values()} <= {"blue", "green", "red"}


def test_an_architecture_that_the_file_does_not_have(convmixer: Command, toy: Path, exported: Path) -> None:
    done = convmixer("eval", "--data_url", toy, "--arch=convmixer_8_3", "--pretrained", exported)
    assert done.code == 2
    assert done.error == f"{exported}: holds convmixer_8_2, not convmixer_8_3 as asked for"


def test_the_size_of_an_exported_file_is_fixed(convmixer: Command, toy: Path, exported: Path) -> None:
    done = convmixer("eval-onnx", toy / "val", "--onnx_path", exported, "--image_size=16")
    assert done.code == 2
    assert "takes images of 8 x 8 pixels, --image_size says 16" in done.error


def digits_folder(folder: Path) -> Path:
    """The digits held out, as image files."""
    digits = open_digits(train=False)
    for index in range(len(digits)):
        place = folder / digits.classes.names[digits.labels[index]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(digits.read(index))[..., 0]).save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("recipe", "allowed"),
    [
        (["--arch=convmixer_24_2", "--epochs=5"], 0.02),
        pytest.param([], 0.005, marks=pytest.mark.slow),
    ],
)
def test_digits_from_training_to_the_exported_file(
    convmixer: Command, here: Path, recipe: list[str], allowed: float
) -> None:
    assert convmixer("train", "--config=digits", *recipe).code == 0
    (best,) = here.glob("runs/best/*/best.safetensors")
    top1 = results(convmixer("eval", "--config=digits", *recipe, "--pretrained", best))["Top1-Acc"]
    assert top1 > 0.8
    val = digits_folder(here / "val")
    for precision, bound in (("fp32", 0.0), ("int8", allowed)):
        name = f"{precision}.onnx"
        done = convmixer(
            "export", "--config=digits", *recipe, "--pretrained", best, "--precision", precision, "-o", name
        )
        assert done.code == 0, done.err
        found = results(convmixer("eval-onnx", val, "--onnx_path", name))["Top1-Acc"]
        assert top1 - found <= bound
        if precision == "fp32":
            assert found == top1


@pytest.mark.slow
def test_openvino_brings_its_weights_and_replaces_only_its_own(
    convmixer: Command, here: Path, toy: Path, toy_run: Run
) -> None:
    pytest.importorskip("openvino")
    words = ["--pretrained", toy_run.best / "best.safetensors", "--file_format=openvino", "--data_url", toy]
    (here / "convmixer_8_2.bin").write_text("somebody's own")
    done = convmixer("export", *words)
    assert done.code == 2
    assert done.error == (
        "--output: convmixer_8_2.xml brings convmixer_8_2.bin, and another file has that name; rename one"
    )
    assert (here / "convmixer_8_2.bin").read_text() == "somebody's own"
    (here / "convmixer_8_2.bin").unlink()
    for _ in range(2):
        assert convmixer("export", *words).out == "convmixer_8_2.xml\n"
        assert {entry.name for entry in here.iterdir()} == {
            "convmixer_8_2.xml",
            "convmixer_8_2.bin",
            "convmixer_8_2.xml.parity.json",
        }
    data = ["--data_url", toy]
    weights = results(convmixer("eval", *data, "--pretrained", toy_run.best / "best.safetensors"))
    assert results(convmixer("eval", *data, "--pretrained", "convmixer_8_2.xml")) == pytest.approx(weights, abs=2e-4)
    done = convmixer("infer", toy / "val/red", "--checkpoint", "convmixer_8_2.xml", "--format=full")
    assert done.code == 0, done.err
    assert json.loads((here / "predictions.json").read_text())


@pytest.mark.slow
def test_int8_that_goes_wrong_names_its_layers(convmixer: Command, here: Path, toy: Path, toy_run: Run) -> None:
    words = ["--pretrained", toy_run.best / "best.safetensors", "--data_url", toy, "--precision=int8"]
    done = convmixer("export", *words, "--tolerance=1e-9")
    assert done.code == 1
    assert "--int8_skip " in done.err
    assert "right top-1 class" in done.err
    assert list(here.iterdir()) == []
    done = convmixer("export", *words, "--tolerance=1", "--int8_skip", "blocks.0.pointwise", "blocks.1.pointwise")
    assert done.code == 0, done.err
    done = convmixer("export", *words[:-1], "--int8_skip", "head")
    assert (done.code, done.error) == (2, "--int8_skip: is for --precision int8")
