"""SIGTERM and Ctrl-C while a run trains: it saves, says how to go on, and can go on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Command, ToyOptions

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 300


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 0)])
def test_a_stopped_run_has_saved_and_goes_on(
    convmixer: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
    number: signal.Signals,
    code: int,
    workers: int,
) -> None:
    options = toy_options(toy, epochs=EPOCHS, eval_every=EPOCHS, num_parallel_workers=workers)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "  step 2/" in line:
            process.send_signal(number)
            break
    out, rest = process.communicate(timeout=60)
    assert process.returncode == code, "".join(lines) + rest
    assert out == ""
    assert "Traceback" not in rest
    said = rest.splitlines()[-1]
    assert said.startswith(f"stopped by {number.name}, saved at step ")
    assert said.endswith(" goes on")
    # The command that goes on is whole, and the one that was typed.
    hint = shlex.split(said.partition("; ")[2].removesuffix(" goes on"))
    assert hint[:-1] == [sys.executable, str(ROOT / "train.py"), *options, "--resume"]
    checkpoint = Path(hint[-1])
    step = int(checkpoint.name.removeprefix("step_"))
    assert checkpoint.is_dir()
    assert 2 <= step < 3 * EPOCHS

    last = step // 3 + 1
    changes = {"epochs": last, "eval_every": last, "num_parallel_workers": 0}
    done = convmixer("train", *toy_options(toy, **changes), "--resume", checkpoint, "--force_resume")
    assert done.code == 0, done.err
    assert f"{checkpoint}: step {step}, " in done.err
    assert done.out.splitlines()[1] == f"last: {checkpoint.with_name(f'step_{3 * last:08d}')}"
