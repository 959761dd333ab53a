"""An install without torch, or without an extra: what needs it says so in a line, and the rest runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.cli.test_onnx_commands import draw, foreign_model
from tests.conftest import Run
from tests.project import run_python

# Importing a name that stands for None raises ModuleNotFoundError, as if it were not installed.
CODE = """
import sys
for name in sys.argv[1].split(","): sys.modules[name] = None
from convmixer.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def without(packages: str, *words: object) -> subprocess.CompletedProcess[str]:
    return run_python("-c", CODE, packages, *words)


@pytest.mark.parametrize("command", ["train", "eval", "infer", "export", "convert"])
def test_torch(here: Path, toy: Path, toy_run: Run, command: str) -> None:
    weights = toy_run.best / "best.safetensors"
    words: dict[str, list[object]] = {
        "train": [],
        "eval": [f"--pretrained={weights}", f"--data_url={toy}"],
        "infer": [toy / "val/red", f"--checkpoint={weights}"],
        "export": [f"--pretrained={weights}"],
        "convert": [weights, "--to=timm"],
    }
    done = without("torch", command, *words[command])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"convmixer: {command} needs torch, which is not installed: pip install 'convmixer[torch]'\n"
    assert list(here.iterdir()) == []


def test_what_runs_without_torch(here: Path, toy: Path) -> None:
    foreign_model(here / "only.onnx")
    draw(here / "red.png", (200, 20, 20))
    gone = "torch,onnx,onnxscript,openvino,huggingface_hub,mindspore,safetensors"
    for words in (
        ["infer", "red.png", "--checkpoint=only.onnx"],
        ["eval", "--pretrained=only.onnx", f"--data_url={toy}"],
    ):
        done = without(gone, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    done = without(gone, "check-data", toy, "-j0")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)  # the toy images are very small
    assert "37 images" in done.stderr
    done = without(gone, "doctor")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "error   torch " in done.stdout


@pytest.mark.parametrize(
    ("package", "words", "message"),
    [
        (
            "onnxruntime",
            ["infer", "red.png", "--checkpoint=only.onnx"],
            "only.onnx needs onnxruntime*convmixer[onnxruntime]",
        ),
        ("onnxruntime", ["eval-onnx", "."], "only.onnx needs onnxruntime*convmixer[onnxruntime]"),
        (
            "openvino",
            ["infer-onnx", "red.png", "--engine=openvino"],
            "--engine: openvino needs openvino*convmixer[openvino]",
        ),
        ("huggingface_hub", ["push", "x", "--repo=a/b"], "push needs huggingface_hub*convmixer[hub]"),
        ("wandb", ["train", "--log_to=wandb"], "--log_to: wandb needs wandb*convmixer[wandb]"),
        ("mlflow", ["train", "--log_to=mlflow"], "--log_to: mlflow needs mlflow*convmixer[mlflow]"),
        (
            "trackio",
            ["train", "--log_to", "tensorboard", "trackio"],
            "--log_to: trackio needs trackio*convmixer[trackio]",
        ),
        ("PIL", ["infer-onnx", "red.png"], "infer-onnx needs PIL*pillow"),
        ("yaml", ["train"], "train needs yaml*pyyaml"),
    ],
)
def test_other_packages(here: Path, package: str, words: list[str], message: str) -> None:
    """`message`: what needs what * what pip installs."""
    foreign_model(here / "only.onnx")
    draw(here / "red.png", (200, 20, 20))
    done = without(package, *words)
    assert (done.returncode, done.stdout) == (2, "")
    needs, _, brings = message.partition("*")
    brings = f"'{brings}'" if "[" in brings else brings
    assert f"convmixer: {needs}, which is not installed: pip install {brings}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["only.onnx", "red.png"]


@pytest.mark.parametrize(
    ("package", "file_format", "extras"),
    [
        ("openvino", "OPENVINO", "onnx,openvino"),
        ("onnx", "OPENVINO", "onnx,openvino"),
        ("executorch", "EXECUTORCH", ""),
    ],
)
def test_the_exporters_of_other_formats(here: Path, toy_run: Run, package: str, file_format: str, extras: str) -> None:
    done = without(package, "export", f"--pretrained={toy_run.best}", f"--file_format={file_format}", "-j0")
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"convmixer: --file_format: {file_format} needs {package}")
    assert last.endswith(f"pip install 'convmixer[{extras or package}]'")
    assert sorted(here.iterdir()) == []


def test_a_comparison_goes_on_without_torch(here: Path, toy_run: Run) -> None:
    foreign_model(here / "only.onnx")
    done = without("torch,openvino", "benchmark", "only.onnx", toy_run.best / "best.safetensors", "--seconds=.01")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "best.safetensors in torch: torch is not installed" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_the_exporter(here: Path, toy_run: Run, package: str) -> None:
    done = without(package, "export", f"--pretrained={toy_run.best}", "-j0")
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert f"needs {package}, " in last
    assert last.endswith("pip install 'convmixer[onnx]'")
    assert sorted(here.iterdir()) == []
