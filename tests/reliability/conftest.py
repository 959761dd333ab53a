"""Comparing runs bit by bit, and running the command line in processes of its own that can be hurt."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.project import project_environment

# What is measured with a clock, and what tells where a run lies, differs between equal runs.
CLOCKED = {"images_per_second", "data_wait"}


def roots(folder: Path) -> list[str]:
    """Options of a run whose three folders lie in `folder`."""
    kinds = {"summary_root_dir": "summary", "ckpt_root_dir": "checkpoints", "best_ckpt_root_dir": "best"}
    return [f"--{option}={folder / 'runs' / kind}" for option, kind in kinds.items()]


def newest(checkpoints: Path) -> Path:
    return max(path for path in checkpoints.iterdir() if path.name.startswith("step_"))


def assert_equal(left: Any, right: Any, where: str) -> None:
    """Equality to the bit of nested tensors and plain values."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    else:
        assert left == right, (where, left, right)


def assert_same_checkpoint(left: Path, right: Path) -> None:
    """Weights, averaged weights and the rest of the state are equal to the bit."""
    assert left.name == right.name
    names = {path.name for path in left.iterdir()}
    assert names == {path.name for path in right.iterdir()}
    for name in sorted(names - {"manifest.json", "state.pt"}):
        assert_equal(load_file(left / name), load_file(right / name), name)
    states = [torch.load(path / "state.pt", weights_only=True) for path in (left, right)]
    for state in states:
        state.pop("log_bytes")  # the clock's digits vary in length
    assert_equal(states[0], states[1], where="state")


def metrics(summary: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (summary / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKED} for line in lines]


def children(pid: int) -> list[int]:
    """Processes that a process started and that still run, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return sorted(found)


def running(pid: int) -> bool:
    """Whether the process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(here: Path) -> Iterator[Start]:
    """Start `convmixer WORDS`, or another command, in a process and a session of its own, in the folder `here`."""
    started: list[subprocess.Popen[str]] = []

    def run(
        *words: object,
        env: dict[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "convmixer.cli.main"),
        **options: Any,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, *map(str, words)],
            cwd=here,
            env=project_environment(OMP_NUM_THREADS="1", **(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            # The processes of a run are in sessions of their own, out of the reach of killpg.
            for pid in (*children(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        process.communicate()
