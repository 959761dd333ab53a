"""The console command itself: help, unknown words, and how fast it answers."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.conftest import Command, Run
from tests.project import ROOT, run_python

from convmixer import __version__
from convmixer.cli.main import COMMANDS

MODULES = {name: f"convmixer.cli.{name.replace('-', '_')}_command" for name in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_listed_is_there(command: str) -> None:
    assert find_spec(MODULES[command]) is not None


@pytest.mark.parametrize("command", [name for name in COMMANDS if find_spec(MODULES[name])])
def test_help_comes_without_what_takes_long_to_import(command: str) -> None:
    code = (
        "import sys\n"
        "from convmixer.cli.main import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "except SystemExit as leave: assert not leave.code\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'openvino', 'mindspore', 'timm'} & set(sys.modules)\n"
    )
    done = run_python("-c", code, command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: convmixer {command} ")


def test_wrong_options_are_answered_without_torch() -> None:
    code = "import sys; from convmixer.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = run_python("-c", code, "train", "--epochs", "0")
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
    for typed, meant in (("predict", "infer"), ("eval_onnx", "eval-onnx"), ("TRAIN", "train"), ("test", "eval")):
        assert convmixer(typed).error == f"unknown command {typed!r}; did you mean {meant}?"
    done = convmixer("--epochs=3")
    assert done.code == 2
    assert done.error.startswith("a command comes before --epochs=3, as in convmixer train; commands: train, eval, ")


def test_words_for_help_and_version(convmixer: Command) -> None:
    assert convmixer("help").out == convmixer("-h").out == convmixer("--help").out
    assert convmixer("help", "infer").out == convmixer("infer", "--help").out
    assert convmixer("version").out == convmixer("-V").out == f"convmixer {__version__}\n"


def test_the_package_is_run_as_a_module() -> None:
    done = run_python("-m", "convmixer", "--version")
    assert (done.returncode, done.stdout) == (0, f"convmixer {__version__}\n"), done.stderr


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_a_path_that_cannot_be_is_one_line(convmixer: Command, here: Path, toy: Path, name: str) -> None:
    (here / "loop").symlink_to("loop")
    for words in (
        ["infer", name, "--checkpoint=x"],
        ["eval", f"--pretrained={name}", f"--data_url={toy}"],
        ["train", f"--data_url={name}"],
        ["check-data", str(toy), f"--json={name}", "-j0"],
        ["infer-onnx", str(toy / "val/red"), f"--onnx_path={name}"],
    ):
        done = convmixer(*words)
        assert done.code in (1, 2), words
        assert len(done.error.splitlines()) == 1
        assert name in done.error


def test_an_empty_value_is_not_the_current_folder(convmixer: Command, here: Path) -> None:
    assert convmixer("train", "--data_url=").error == "--data_url: is empty"
    assert convmixer("train", "").error == "--data_url: is empty"
    assert convmixer("infer", "", "--checkpoint=x").error == "DATA: is empty"
    assert convmixer("infer", "x", "--checkpoint", "").error == "--checkpoint: is empty"


def test_a_reader_that_leaves_is_no_error(toy: Path, toy_run: Run) -> None:
    words = f"'{toy / 'val'}' --recursive -o /dev/null --checkpoint '{toy_run.best / 'best.safetensors'}'"
    shell = f"set -o pipefail; '{sys.executable}' -u '{ROOT / 'infer.py'}' {words} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
