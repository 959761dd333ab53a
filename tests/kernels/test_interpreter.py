"""The tests of `device` in Triton's interpreter, each file in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
import torch

HERE = Path(__file__).parent
FILES = sorted(path.name for path in (HERE / "device").glob("test_*.py"))
# Each takes a quarter to half of a minute: what touches only the kernels of these needs `make test-slow`.
LONG = {"test_block.py", "test_block_grad.py", "test_depthwise.py", "test_memory.py", "test_tuning.py"}


def _release(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")[:2]))


pytestmark = [
    pytest.mark.skipif(
        torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="they are run where they stand"
    ),
    pytest.mark.skipif(
        find_spec("triton") is not None
        and _release(version("triton")) < (3, 7)
        and _release(numpy.__version__) >= (2, 4),
        reason="this Triton's interpreter takes an array of one value for a number, which NumPy refuses since 2.4",
    ),
]


def run(name: str, mark: str) -> None:
    pytest.importorskip("triton")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        mark,
        f"tests/kernels/device/{name}",
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    for name in [key for key in environment if key.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False)
    # 5: no test of the file has this mark.
    assert done.returncode in ((0, 5) if mark == "slow" else (0,)), done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FILES]
)
def test_fast(name: str) -> None:
    run(name, "not slow")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_slow(name: str) -> None:
    run(name, "slow")
