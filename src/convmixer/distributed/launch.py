"""Several processes of a training run on this machine: started, signalled and ended together, as torchrun does it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from convmixer.distributed.processes import RUN_TIME
from convmixer.errors import RUN_FAILED, WRONG_USE, UserError
from convmixer.machine import usable_cores
from convmixer.run_names import TIME_FORMAT
from convmixer.runs.folders import COMMAND, typed_command
from convmixer.signals import LAUNCHER, STOP_SIGNALS, heeded

logger = logging.getLogger(__name__)

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.0.1"
POLL_SECONDS = 0.1
# What the others have once one process has failed, or has ended since the run is saved. Before that nobody is pressed:
# a step, a batch of an evaluation and a save take what they take, and where one hangs another fails in dist_timeout.
GRACE_SECONDS = 30.0
_STOPPED = {128 + number for number in STOP_SIGNALS}


def launch(processes: int, command: Sequence[str], *, max_restarts: int = 0) -> int:
    """Run the command line `convmixer <command>` in so many processes and return the run's exit code.

    A stop signal is handed on to all processes; the code is then 128 plus its number where all of them say that the
    run is saved, else 1. A failed run is started again `max_restarts` times. The processes print their own errors;
    what they cannot say themselves, as that one was killed, raises UserError (exit 1).
    """
    environment = _environment(processes, command)
    sent: list[int] = []
    before = {number: signal.signal(number, lambda number, _: sent.append(number)) for number in heeded()}
    try:
        for attempt in range(max_restarts + 1):
            group = _Group(processes, [sys.executable, "-m", "convmixer.cli.main", *command], environment, attempt)
            try:
                group.wait(sent)
            finally:
                group.kill()
            if sent or group.code in {0, WRONG_USE, *_STOPPED}:
                break
            if attempt < max_restarts:
                logger.warning(f"{group.failure}; start {attempt + 2} of {max_restarts + 1}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return group.outcome(sent)


def _environment(processes: int, command: Sequence[str]) -> dict[str, str]:
    """What all processes of the run, of the first start and of others, find in their environment."""
    return {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // processes)),
        # Each process would warn that DDP was set to look for unused parameters and found none (see
        # train.network.wrap).
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        **os.environ,
        COMMAND: typed_command(command),
        RUN_TIME: datetime.now().strftime(TIME_FORMAT),
        # The package may stand in a checkout that nobody installed.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")])),
    }


class _Group:
    """The processes of one start. Each is in a session of its own, where a terminal's signals do not reach it."""

    def __init__(self, count: int, words: list[str], environment: Mapping[str, str], attempt: int) -> None:
        # By it the processes find each other. It is new for every start: the addresses of the dead are not in it.
        self._store = TCPStore(ADDRESS, 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=5))
        shared = {
            LAUNCHER: str(os.getpid()),
            "MASTER_ADDR": ADDRESS,
            "MASTER_PORT": str(self._store.port),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(attempt),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._failed: list[int] = []  # ranks, in the order in which they were found to have failed
        for rank in range(count):
            own = {**environment, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._processes.append(subprocess.Popen(words, env=own, start_new_session=True))

    def wait(self, sent: list[int]) -> None:
        """Wait for the end of all, and hand on what comes into `sent` meanwhile."""
        handed, first_end = 0, None
        while any(self._running()):
            for number in sent[handed:]:
                self._signal(number)
            handed = len(sent)
            ended = self._poll()
            # A second Ctrl-C quits, also where a process hangs in a library and cannot hear it.
            if (ended or sent.count(signal.SIGINT) > 1) and first_end is None:
                first_end = time.monotonic()
                if self._failed:
                    self._signal(signal.SIGTERM)
            if first_end is not None and time.monotonic() - first_end > GRACE_SECONDS:
                self.kill()
            time.sleep(POLL_SECONDS)
        self._poll()

    def kill(self) -> None:
        """End what still runs, loader processes included."""
        for process in self._running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def code(self) -> int:
        """Exit code of the first process that failed; else 0, or 128 + a signal's number of a run that was stopped."""
        return self._codes[self._failed[0]] if self._failed else max(self._codes)

    @property
    def failure(self) -> str:
        """How the first process that failed ended."""
        rank = self._failed[0] if self._failed else self._codes.index(self.code)
        code = self._codes[rank]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        return f"process {rank} {how}"

    def outcome(self, sent: list[int]) -> int:
        """The run's exit code. Raises UserError for an end that no process has reported."""
        codes = set(self._codes)
        if len(codes) == 1 and self.code in {0, *_STOPPED}:
            return self.code
        # One that the signal killed had not begun to train, or was done: there was nothing to save.
        if sent and codes <= {-sent[0], 128 + sent[0]}:
            return 128 + sent[0]
        if sent:
            name = signal.Signals(sent[0]).name
            raise UserError(f"stopped by {name}, but not saved: {self.failure}", exit_code=RUN_FAILED)
        if self.code < 0:
            raise UserError(f"{self.failure}; the run has ended", exit_code=RUN_FAILED)
        return self.code

    @property
    def _codes(self) -> list[int]:
        return [process.wait() for process in self._processes]

    def _running(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self._processes if process.poll() is None]

    def _poll(self) -> bool:
        """Note which have failed; of those found at once a killed one first, of which the others are the victims.

        True once a process has ended otherwise than with 0: then the run is over for all.
        """
        ended = {rank: process.returncode for rank, process in enumerate(self._processes) if process.poll()}
        new = [rank for rank, code in ended.items() if code not in _STOPPED and rank not in self._failed]
        self._failed += sorted(new, key=lambda rank: ended[rank] > 0)
        return bool(ended)

    def _signal(self, number: int) -> None:
        for process in self._running():
            process.send_signal(number)
