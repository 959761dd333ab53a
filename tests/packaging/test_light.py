"""The wheel without torch, in an environment of its own: how much it weighs, what runs, and what the rest says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Run, run_command
from tests.project import ROOT
from tests.serve.served import serving

pytestmark = pytest.mark.slow

MAX_MEGABYTES = 300
EXTRAS = "onnxruntime,serve"
NOT_THERE = {"torch", "matplotlib", "jinja2", "pytorch_optimizer", "safetensors", "tensorboardX", "onnxscript", "sympy"}
# Command -> its words, of what torch is needed for.
WITH_TORCH = {
    "train": ["train"],
    "train on a folder": ["train", "FOLDER"],
    "train with muon": ["train", "--optimizer=muon"],
    "eval": ["eval", "--pretrained=WEIGHTS", "--data_url=FOLDER"],
    "infer": ["infer", "FOLDER/val/red", "--checkpoint=WEIGHTS"],
    "export": ["export", "--pretrained=WEIGHTS"],
    "report": ["report", "SUMMARY"],
    "plan": ["plan", "FOLDER"],
    "lr-find": ["lr-find", "FOLDER"],
    "convert": ["convert", "WEIGHTS", "--to=timm"],
    "average": ["average", "WEIGHTS", "WEIGHTS"],
    "push": ["push", "WEIGHTS", "--repo=me/small", "--dry_run"],
}


class Environment:
    """An environment of Python that has convmixer without torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, program: str, *words: object, where: Path) -> subprocess.CompletedProcess[str]:
        """`program` of the environment, which sees no other packages than its own."""
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.folder / "bin" / program), *map(str, words)]
        return subprocess.run(command, cwd=where, env=clean, capture_output=True, text=True, timeout=300)

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found


@pytest.fixture(scope="module")
def light(wheel: Path, new_environment: Callable[[], Path]) -> Environment:
    light = Environment(new_environment())
    words = ["install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", f"{wheel}[{EXTRAS}]"]
    done = light.run("pip", *words, where=light.folder)
    assert done.returncode == 0, done.stderr
    return light


@pytest.fixture(scope="module")
def model(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run's weights as an ONNX file, exported where torch is."""
    path = tmp_path_factory.mktemp("exported") / "toy.onnx"
    done = run_command("export", f"--pretrained={weights}", f"--output={path}", "-j0")
    assert done.code == 0, done.err
    return path


def test_it_is_small(light: Environment) -> None:
    names = {path.name for path in light.packages.iterdir()}
    assert "convmixer" in names
    assert names & NOT_THERE == set()
    # Each file in blocks of the disk, as `du` counts; pip itself is no part of what is installed.
    found = [path for path in light.packages.rglob("*") if path.is_file() and not path.is_symlink()]
    own = [path for path in found if path.relative_to(light.packages).parts[0] not in ("pip", "setuptools")]
    megabytes = sum(path.stat().st_blocks * 512 for path in own) / 1e6
    print(f"site-packages: {megabytes:.0f} MB")
    assert megabytes < MAX_MEGABYTES


def test_an_onnx_file_is_used(light: Environment, model: Path, toy: Path, here: Path) -> None:
    answers: list[object] = []
    commands: list[list[object]] = [
        ["infer-onnx", toy / "val/red", f"--onnx_path={model}", "--output=a.json"],
        ["infer", toy / "val/red", f"--checkpoint={model}", "--output=b.json"],
    ]
    for words in commands:
        done = light.run("convmixer", *words, where=here)
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert answers[0] == answers[1] == run_command("infer", toy / "val/red", f"--checkpoint={model}").out != ""
    scores = []
    commands = [
        ["eval-onnx", toy / "val", f"--onnx_path={model}"],
        ["eval", f"--pretrained={model}", f"--data_url={toy}"],
    ]
    for words in commands:
        done = light.run("convmixer", *words, where=here)
        assert done.returncode == 0, done.stderr
        scores.append(done.stdout)
    assert "Top1-Acc" in scores[0]
    assert scores[1] == run_command("eval", f"--pretrained={model}", f"--data_url={toy}").out


def test_an_onnx_file_is_served(light: Environment, model: Path, toy: Path) -> None:
    photo = next(iter((toy / "val/red").iterdir()))
    with serving(model, python=light.folder / "bin/python") as server:
        (found,) = server.ask("/predict", photo.read_bytes(), Content_Type="image/png").json["predictions"]
        page = server.ask("/")
    (line,) = run_command("infer", photo, f"--checkpoint={model}", "--topk=1").out.splitlines()
    assert line == f"{photo} ({found['name']} {found['probability']:.4f})"
    assert b"What is in the picture?" in page.body


def test_images_in_bulk_and_alike(light: Environment, model: Path, toy: Path, here: Path) -> None:
    done = light.run("convmixer", "bulk", toy / "val/red", "out", f"--checkpoint={model}", where=here)
    assert (done.returncode, (here / "out/part-000000.jsonl").exists()) == (0, True), done.stderr
    done = light.run("convmixer", "similar", toy / "val/red", f"--checkpoint={model}", where=here)
    assert done.returncode == 0, done.stderr


def test_python(light: Environment, model: Path, toy: Path, weights: Path, here: Path) -> None:
    code = "import convmixer, sys; print(*(each.index for each in convmixer.predict(*sys.argv[1:])))"
    done = light.run("python", "-c", code, model, toy / "val/red", where=here)
    assert (done.returncode, len(done.stdout.split())) == (0, len(list((toy / "val/red").iterdir()))), done.stderr
    done = light.run("python", "-c", code, weights, toy / "val/red", where=here)
    assert done.stderr.splitlines()[-1] == (
        "convmixer.errors.UserError: convmixer.predict needs torch, which is not installed: "
        "pip install 'convmixer[torch]'"
    )


def test_data_are_looked_through_and_packed(light: Environment, toy: Path, toy_run: Run, here: Path) -> None:
    done = light.run("convmixer", "check-data", toy, "-j0", where=here)
    assert (done.returncode, "37 images" in done.stderr) == (1, True), done.stderr  # toy images are very small
    done = light.run("convmixer", "pack", toy, "shards", where=here)
    assert done.returncode == 0, done.stderr
    assert "24 training and 13 evaluation images" in done.stdout
    done = light.run("convmixer", "runs", f"--summary_root_dir={toy_run.summary.parent}", where=here)
    assert (done.returncode, toy_run.name in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("name", WITH_TORCH)
def test_what_needs_torch_says_so_in_a_line(
    name: str, light: Environment, toy: Path, toy_run: Run, weights: Path, here: Path
) -> None:
    places = {"FOLDER": toy, "WEIGHTS": weights, "SUMMARY": toy_run.summary}
    words = WITH_TORCH[name]
    for word, place in places.items():
        words = [each.replace(word, str(place)) for each in words]
    done = light.run("convmixer", *words, where=here)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("convmixer: ")
    assert line.endswith(", which is not installed: pip install 'convmixer[torch]'")
    assert list(here.iterdir()) == []


def test_help_and_the_doctor_need_nothing(light: Environment, here: Path) -> None:
    done = light.run("convmixer", "--help", where=here)
    assert done.returncode == 0
    commands = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert set(commands) > {"train", "eval-onnx", "doctor"}
    for command in commands:
        done = light.run("convmixer", command, "--help", where=here)
        assert (done.returncode, done.stderr) == (0, ""), command
    done = light.run("convmixer", "doctor", where=here)
    assert (done.returncode, done.stderr) == (1, "")
    (torch,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert torch.split()[1:4] == ["torch", "not", "installed:"]
    assert "fix: pip install 'convmixer[torch]'" in done.stdout
