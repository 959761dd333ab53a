"""`benchmark`: a row for each file and engine, what cannot be run named, and the accuracy that `eval` gives."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from tests.conftest import Command, Run

pytest.importorskip("onnxruntime")


@pytest.mark.slow
def test_the_comparison(convmixer: Command, here: Path, toy: Path, toy_run: Run) -> None:
    weights = toy_run.best / "best.safetensors"
    assert convmixer("export", "--pretrained", weights, "--data_url", toy, "-o", "m.onnx").code == 0
    (here / "bad.onnx").write_text("no model")
    files = [weights, "m.onnx", "bad.onnx"]
    words = ["--data_url", toy, "--batch_size=4", "--seconds=.05", "--json=found.json", "-j0"]
    done = convmixer("benchmark", *files, *words)
    assert done.code == 1
    head, *rows = done.out.splitlines()
    assert head.split() == "file engine MB img/s at 1 img/s at 4 p50 ms p99 ms top-1 %".split()
    record = json.loads((here / "found.json").read_text())
    assert {(row["file"], row["engine"]) for row in record["files"]} >= {
        (str(weights), "torch"),
        ("m.onnx", "onnxruntime"),
    }
    assert len(rows) == len(record["files"])
    evaluated = ast.literal_eval(
        convmixer("eval", "--data_url", toy, "--pretrained", weights).out.removeprefix("eval results: ")
    )
    for row in record["files"]:
        assert row["bytes"] == Path(row["file"]).stat().st_size
        assert row["batch_size"] == 4
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["images_per_second"] == pytest.approx(1000 / row["p50_ms"])
        assert row["top1"] == pytest.approx(evaluated["Top1-Acc"])
    assert {failed["file"] for failed in record["failed"]} == {"bad.onnx"}
    assert "not compared: bad.onnx in onnxruntime: bad.onnx: " in done.err


def test_without_images_there_is_no_accuracy(convmixer: Command, here: Path, weights: Path) -> None:
    done = convmixer("benchmark", weights, "--seconds=.01")
    assert done.code == 0, done.err
    assert "top-1" not in done.out
    assert len(done.out.splitlines()) == 2
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "FILES: model files are needed"),
        (["gone.onnx"], 1, "gone.onnx: no such file"),
        (["W", "--json=gone/found.json"], 2, "--json: "),
        (["W", "--seconds=0"], 2, "--seconds"),
    ],
)
def test_wrong_use(convmixer: Command, weights: Path, words: list[str], code: int, message: str) -> None:
    done = convmixer("benchmark", *(str(weights) if word == "W" else word for word in words))
    assert done.code == code
    assert message in done.err
    assert done.out == ""
