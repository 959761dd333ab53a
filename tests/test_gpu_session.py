"""The session on a GPU: its steps name scripts that are there and take these options; without a GPU it says so."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convmixer.cli.train_command import COMMAND
from convmixer.config.loading import parse

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_takes_the_options_of_its_step(tmp_path: Path) -> None:
    session = load("gpu_session")
    given = argparse.Namespace(output=tmp_path, cifar10=tmp_path)
    script, *argv = session.command("cifar10", given, tmp_path)
    assert Path(script).is_file()
    options = parse(COMMAND, argv).options
    assert (options.arch, options.epochs, options.eval_every) == ("convmixer_256_8", 25, 25)
    assert options.best_ckpt_root_dir == str(tmp_path / "best_ckpt")


@pytest.mark.parametrize("step", ["training", "inference", "kernels", "batch", "curves"])
def test_every_step_names_a_script(step: str, tmp_path: Path) -> None:
    given = argparse.Namespace(output=tmp_path, cifar10=tmp_path)
    assert Path(load("gpu_session").command(step, given, tmp_path)[0]).is_file()


def test_what_needs_data_says_so(tmp_path: Path) -> None:
    given = argparse.Namespace(output=tmp_path, cifar10=None)
    assert load("gpu_session").command("cifar10", given, tmp_path) == "it needs --cifar10 FOLDER"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses() -> None:
    found = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_session.py")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert found.stderr.startswith("a CUDA GPU is needed")
