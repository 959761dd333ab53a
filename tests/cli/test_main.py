"""The console command itself: help, unknown words, and how fast it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.conftest import Command, Run

from convmixer import __version__
from convmixer.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
MODULES = {name: f"convmixer.cli.{name.replace('-', '_')}_command" for name in COMMANDS}


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_listed_is_there(command: str) -> None:
    assert find_spec(MODULES[command]) is not None


@pytest.mark.parametrize("command", [name for name in COMMANDS if find_spec(MODULES[name])])
def test_help_comes_at_once_and_without_torch(command: str) -> None:
    code = (
        "import sys\n"
        "from convmixer.cli.main import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "except SystemExit as leave: assert not leave.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = python(code, command)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 0.5:
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: convmixer {command} ")
    # Half a second is what a user gets; the machine of a test may be busy.
    assert min(seconds) < 1.5


def test_wrong_options_are_answered_without_torch() -> None:
    code = "import sys; from convmixer.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = python(code, "train", "--epochs", "0")
    assert done.returncode == 0
    assert done.stderr.startswith("convmixer: --epochs: ")


def test_help_lists_options_with_their_bounds_and_defaults(convmixer: Command) -> None:
    done = convmixer("train", "--help")
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "--base_lr X peak learning rate [number > 0, default 0.001]" in text
    assert "-a X, --arch X" in text
    assert "--ckpt_save_every_sec X, --ckpt_save_every_seconds X" in text


def test_without_a_command(convmixer: Command) -> None:
    done = convmixer()
    assert done.code == 2
    assert all(f"  {name} " in done.out for name in COMMANDS)
    assert convmixer("--help").code == 0
    assert convmixer("--version").out == f"convmixer {__version__}\n"


def test_an_unknown_command_is_answered_with_the_nearest(convmixer: Command) -> None:
    done = convmixer("trian")
    assert (done.code, done.error) == (2, "unknown command 'trian'; did you mean train?")
    assert convmixer("--epochs=3").code == 2


def test_a_reader_that_leaves_is_no_error(toy: Path, toy_run: Run) -> None:
    words = f"'{toy / 'val'}' --recursive -o /dev/null --checkpoint '{toy_run.best / 'best.safetensors'}'"
    shell = f"set -o pipefail; '{sys.executable}' -u '{ROOT / 'infer.py'}' {words} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
