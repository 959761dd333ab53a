"""Signals while a run trains, and streams that go away: it saves and can go on, or it trains on."""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tests.conftest import Command, ToyOptions
from tests.project import ROOT

EPOCHS = 300


def start(options: list[str], ignored: tuple[int, ...] = (), terminal: int | None = None) -> subprocess.Popen[str]:
    """A run in a session of its own, which ignores these signals as one that nohup started; on a terminal or pipes."""

    def begin() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        if terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    stream = subprocess.PIPE if terminal is None else terminal
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        start_new_session=True,
        preexec_fn=begin,
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=stream,
        stderr=stream,
    )


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("runs/checkpoints/*/step_*"))


@pytest.mark.slow
# The whole process group gets it, as from a terminal or an agent: the loader processes must not die of it.
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
    process = start(options)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "  step 2/" in line:
            os.killpg(process.pid, number)
            break
    out, rest = process.communicate(timeout=60)
    assert process.returncode == code, "".join(lines) + rest
    assert out == ""
    assert "Traceback" not in rest
    said = rest.splitlines()[-1]
    assert said.startswith(f"stopped by {number.name}, saved at step ")
    assert said.endswith(" goes on")
    # The command that goes on is the program that was typed, and the run, which has its options.
    hint = shlex.split(said.partition("; ")[2].removesuffix(" goes on"))
    assert hint[:-1] == [sys.executable, str(ROOT / "train.py"), "--resume"]
    checkpoint = max(Path(hint[-1]).iterdir())
    step = int(checkpoint.name.removeprefix("step_"))
    assert checkpoint.is_dir()
    assert 2 <= step < 3 * EPOCHS

    # As it stands it is no wrong use: every option is as it was, to the number of processes that load.
    again = subprocess.Popen(hint, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert again.stderr is not None
    for line in again.stderr:
        if line.startswith(f"resumed {checkpoint}: step {step}, "):
            break
    else:
        pytest.fail("it did not go on")
    os.killpg(again.pid, signal.SIGKILL)
    again.communicate()

    last = step // 3 + 1
    changes = {"epochs": last, "eval_every": last, "num_parallel_workers": 0}
    done = convmixer("train", *toy_options(toy, **changes), "--resume", checkpoint, "--force_resume")
    assert done.code == 0, done.err
    assert f"{checkpoint}: step {step}, " in done.err
    assert done.out.splitlines()[1] == f"last: {checkpoint.with_name(f'step_{3 * last:08d}')}"


@pytest.mark.slow
def test_a_run_that_nobody_watches_goes_on(here: Path, toy: Path, toy_options: ToyOptions) -> None:
    # `nohup convmixer train 2>&1 | head`, and then the connection closes.
    process = start(toy_options(toy, epochs=30, eval_every=30, num_parallel_workers=1), ignored=(signal.SIGHUP,))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    for line in process.stderr:
        if "  step 2/" in line:
            break
    process.stderr.close()
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert saved_steps(here)[-1] == 90


@pytest.mark.slow
@pytest.mark.parametrize(("ignored", "code"), [((), 129), ((signal.SIGHUP,), 0)])
def test_a_terminal_that_is_closed(
    ignored: tuple[int, ...], code: int, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    main, side = os.openpty()
    termios.tcsetwinsize(side, (24, 80))
    options = toy_options(toy, epochs=100, eval_every=100, num_parallel_workers=1, ckpt_save_every_step=1)
    process = start(options, ignored, terminal=side)
    os.close(side)
    shown = b""
    while b"img/s" not in shown or len(saved_steps(here)) < 2:
        assert select.select([main], [], [], 60)[0], "it tells nothing"
        shown += os.read(main, 4096)
    os.close(main)
    assert process.wait(timeout=120) == code
    steps = saved_steps(here)
    assert steps[-1] == 300 if code == 0 else 2 <= steps[-1] < 300
