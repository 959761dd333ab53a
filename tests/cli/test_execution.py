"""A backend of running that is asked for by name is there, or the command ends before it writes anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.cli.test_onnx_commands import foreign_model
from tests.conftest import Command, Run, ToyOptions

KINDS = ("fused", "compile", "openvino")


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No compiler, no OpenVINO."""
    (tmp_path / "no programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("bare_machine")
def test_training_makes_no_run(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, kind: str) -> None:
    words = ["--compile"] if kind == "compile" else [f"--execution={kind}"]
    # Our own backend takes odd kernels.
    done = convmixer("train", *toy_options(toy), "--kernel_size=4", "--device_target=CPU", *words)
    assert done.code == 2
    assert done.error.startswith(f"--execution: there is nothing {kind} for training of this network on cpu; it needs ")
    assert not (here / "runs").exists()


@pytest.mark.parametrize("kind", ["compile", "openvino"])
@pytest.mark.usefixtures("bare_machine")
def test_nothing_is_answered(convmixer: Command, here: Path, toy: Path, toy_run: Run, kind: str) -> None:
    weights = toy_run.best / "best.safetensors"
    for words in (["infer", toy / "val/red", "--checkpoint"], ["eval", "--data_url", toy, "--pretrained"]):
        done = convmixer(*words, weights, "--device_target=CPU", f"--execution={kind}")
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith(f"--execution: there is nothing {kind} for inference of this network on cpu; ")
    assert not (here / "predictions.json").exists()


@pytest.mark.usefixtures("bare_machine")
def test_auto_needs_neither(convmixer: Command, here: Path, toy: Path, toy_run: Run) -> None:
    done = convmixer("eval", "--data_url", toy, "--pretrained", toy_run.best / "best.safetensors")
    assert done.code == 0
    assert "execution" not in done.err


def test_a_file_with_an_engine_of_its_own_has_no_backends(convmixer: Command, here: Path, toy: Path) -> None:
    model = foreign_model(here / "m.onnx", "float[n, 3, 10, 10] pixels")
    for words in (["infer", toy / "val/red", "--checkpoint"], ["eval", "--data_url", toy, "--pretrained"]):
        done = convmixer(*words, model, "--execution=openvino")
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith("--execution: openvino is for weights; exported files have an engine")
        assert convmixer(*words, model, "--execution=auto").code == 0


@pytest.mark.usefixtures("bare_machine")
def test_an_engine_that_is_not_installed(convmixer: Command, here: Path, toy: Path) -> None:
    foreign_model(here / "m.onnx", "float[n, 3, 10, 10] pixels")
    done = convmixer("infer-onnx", toy / "val/red", "--engine=openvino")
    assert (done.code, done.out) == (2, "")
    assert done.error == (
        "--engine: openvino needs openvino, which is not installed: pip install 'convmixer[openvino]'"
    )
