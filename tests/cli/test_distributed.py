"""Two processes with Gloo, started by the shell wrapper."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import Command, Done, Run, ToyOptions
from tests.project import ROOT

SCRIPT = ROOT / "scripts/run_distribute_train_gpu.sh"

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU: without a GPU only")


@pytest.fixture
def train_in_two(here: Path) -> Command:
    """Train in two processes, in the folder `here`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}

    def run(*words: object) -> Done:
        command = ["bash", str(SCRIPT), "small_folder", "--num_devices", "2", "--extra", *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.mark.slow
def test_one_run_with_an_exact_evaluation(
    train_in_two: Command,
    convmixer: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
) -> None:
    done = train_in_two(*toy_options(toy, batch_size=4), "--with_ema")
    assert done.code == 0, done.err
    assert "global batch 8, 3 steps per epoch" in done.err
    run = Run.below(here, done)
    assert [entry["step"] for entry in run.metrics("train")] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in run.metrics("eval")] == [3, 6]
    assert len(done.out.splitlines()) == 2
    # What the wrapper ran, for all its processes.
    command = shlex.split(json.loads((run.summary / "run.json").read_text())["command"])
    assert command[0] == sys.executable
    assert command[-len(toy_options(toy)) - 1 :] == [*toy_options(toy, batch_size=4), "--with_ema"]
    assert "torch.distributed.run" in command or "--device_num" in command
    # 13 images on two processes: none is counted twice, none left out.
    for entry in run.metrics("eval"):
        checkpoint = run.checkpoints / f"step_{entry['step']:08d}"
        alone = convmixer("eval", f"--data_url={toy}", "--pretrained", checkpoint, "--batch_size=4")
        assert alone.out == f"eval results: { {name: entry[name] for name in ('Loss', 'Top1-Acc', 'Top5-Acc')} }\n"
        assert "13 images, " in alone.err


def test_what_is_wrong_before_the_start_is_logged_once(
    train_in_two: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
) -> None:
    done = train_in_two(*toy_options(toy), "--bach_size=4")
    assert done.code == 2
    assert done.err == "convmixer: unknown option --bach_size; did you mean --batch_size?\n"
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_what_the_processes_find_wrong_is_logged_once(
    train_in_two: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
) -> None:
    done = train_in_two(*toy_options(toy, num_classes=10))
    assert done.code == 2
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("convmixer: ")]) == 1
    assert "torch.distributed" not in done.err
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_run_of_two_is_resumed_by_two(
    train_in_two: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
) -> None:
    options = [*toy_options(toy, batch_size=4, epochs=1), "--ckpt_save_every_step=1"]
    assert train_in_two(*options).code == 0
    (folder,) = (here / "runs/checkpoints").iterdir()
    whole = (folder / "step_00000003/model.safetensors").read_bytes()
    done = train_in_two(*options, "--resume", folder / "step_00000001")
    assert done.code == 0, done.err
    assert (folder / "step_00000003/model.safetensors").read_bytes() == whole
    run = Run.below(here, done)
    assert [entry["step"] for entry in run.metrics("train")] == [1, 2, 3]
