"""What the first process does alone, for longer than a collective may take; with real processes (Gloo)."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ToyOptions
from tests.project import SRC_AND_TESTS, project_environment
from torch.distributed import HashStore  # type: ignore[attr-defined]  # documented, not in __all__

from convmixer.distributed.processes import Processes
from convmixer.distributed.waiting import from_first_in_time
from convmixer.errors import UserError

BEGIN = """
import os, sys, time
import torch
from convmixer.distributed.processes import Processes, process_group
from convmixer.errors import UserError
from convmixer.distributed.waiting import from_first_in_time
processes = Processes.from_environment()
"""
# A collective after the wait, whose time-out is shorter than the work was.
WAITS = """
def work():
    {work}
try:
    with process_group(processes, torch.device("cpu"), {timeout}):
        processes.gather(processes.rank)
        value = from_first_in_time(processes, "work", work, {limit})
        print(value, processes.gather(processes.rank))
except UserError as error:
    print(f"UserError {{error.exit_code}}: {{error}}")
"""


def answers(script: str, *words: str, count: int = 2, **variables: str) -> list[tuple[int, str, str, float]]:
    """Exit code, stdout, stderr and seconds of each of some processes that run a script together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared = project_environment(PYTHONPATH=SRC_AND_TESTS, OMP_NUM_THREADS="1", **group | variables)
    start = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, *words],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    found = []
    for process in running:
        out, err = process.communicate(timeout=120)
        found.append((process.returncode, out.strip(), err, time.monotonic() - start))
    return found


def waiting(work: str, timeout: float = 30.0) -> list[tuple[int, str, str, float]]:
    return answers(BEGIN + WAITS.format(work=work, timeout=timeout, limit=60))


@pytest.mark.slow
def test_work_may_take_longer_than_a_collective() -> None:
    found = waiting("time.sleep(8); return ['way', None]", timeout=5.0)
    assert [(code, out) for code, out, *_ in found] == [(0, "['way', None] [0, 1]")] * 2


@pytest.mark.slow
def test_others_do_not_wait_for_a_first_process_that_is_gone() -> None:
    (first, *_), (code, out, _, seconds) = waiting("os._exit(1)")
    assert first == 1
    assert (code, out) == (0, "UserError 1: the first process of the run is gone")
    assert seconds < 30


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Two processes, as threads with a store: what each gets, or the error that it ends with."""
    store = HashStore()
    monkeypatch.setattr("convmixer.distributed.waiting.shared_store", lambda: store)
    monkeypatch.setattr("convmixer.distributed.waiting.POLL_SECONDS", 0.01)

    def run(work: Callable[[], Any], limit: float) -> list[Any]:
        def one(rank: int) -> Any:
            try:
                return from_first_in_time(Processes(rank, rank, 2), "work", work, limit)
            except Exception as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))

    return run


def test_all_get_what_the_first_found(together: Callable[..., list[Any]]) -> None:
    assert together(lambda: ["way", None], 60) == [["way", None]] * 2
    assert from_first_in_time(Processes(), "work", lambda: 3, 60) == 3


def test_an_error_of_the_first_is_that_of_all(together: Callable[..., list[Any]]) -> None:
    def refuse() -> None:
        raise UserError("--execution: is not there", exit_code=2)

    found = together(refuse, 60)
    assert [(type(one), str(one), one.exit_code) for one in found] == [(UserError, "--execution: is not there", 2)] * 2


def test_one_of_our_own_making_ends_the_others(together: Callable[..., list[Any]]) -> None:
    first, other = together(lambda: dict[str, int]()["no such way"], 60)
    assert type(first) is KeyError
    assert (str(other), other.exit_code) == ("the first process of the run failed", 1)


def test_waiting_has_an_end(together: Callable[..., list[Any]]) -> None:
    done, other = together(lambda: time.sleep(0.5), 0.1)
    assert done is None
    assert (str(other), other.exit_code) == ("the first process of the run has not answered in 0.1 s", 1)


TRAIN = """
import sys, time
from convmixer.backends import registry
from convmixer.backends.autotune import choose
from convmixer.backends.function import FunctionOfModel

def build(model, workload, plan):
    print("built", file=sys.stderr)
    time.sleep(2)
    return FunctionOfModel(model, lambda model, images: model(images))

eager = registry.Backend("eager, channels_last", "eager", lambda workload: True, lambda model, *_: model)
slow = [registry.Backend(name, "fused", lambda workload: workload.training, build) for name in ("slow 1", "slow 2")]
registry.BACKENDS = (eager, *slow)
choose.OUTLASTS = 0.0
choose.TUNING_SECONDS = 0.1
from convmixer.cli.main import main
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_training_waits_for_backends_that_take_long_to_measure(
    here: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    options = toy_options(toy, epochs=1, batch_size=4, dist_timeout=5, execution="fused")
    found = answers(TRAIN, *options, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert [code for code, *_ in found] == [0, 0], found
    first, other = (err for _, _, err, _ in found)
    assert "execution: timing 3 backends" in first
    assert "execution: slow " in first
    assert "execution" not in other
    # Each is built for the check and for the timing: eight seconds, where a silent process is given up after five.
    assert first.count("built") - other.count("built") == 4
