"""Commands of a step of `gpu_session.py`, several at once, within a time limit that nothing of theirs outlives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

POLL = 0.1  # seconds
GRACE = 5.0  # seconds from an interrupt, upon which pytest tells what it found, to the end
MARK = "GPU_SESSION_STEP"


@dataclass(frozen=True)
class Command:
    """Arguments of Python, the name of its log, and what it finds in its environment besides ours."""

    name: str
    words: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """How a command ended: its exit code (negative: the signal), or None where it was ended for its time, or not begun.

    `last`: the last lines of its log.
    """

    name: str
    code: int | None
    seconds: float
    last: list[str] = field(default_factory=list)

    def describe(self) -> str:
        how = "out of time" if self.code is None else "done" if self.code == 0 else f"exit {self.code}"
        return f"{self.name}: {how} after {self.seconds:.0f} s" + "".join(f": {line}" for line in self.last[-1:])


@dataclass
class _Running:
    command: Command
    process: subprocess.Popen[bytes]
    start: float
    log: Path


def run(
    commands: Sequence[Command],
    logs: Path,
    seconds: float,
    *,
    at_once: int,
    folder: Path,
    meanwhile: Callable[[], None],
) -> list[Ended]:
    """Run the commands in `folder`, each with a log of its own and in a process group of its own.

    After `seconds` what still runs is interrupted, and soon killed with all that it started: groups, and processes that
    left them but carry the mark in their environment (on Linux). What was not begun by then never is. `meanwhile` is
    called often.
    """
    waiting = list(commands)
    running: list[_Running] = []
    ended: list[Ended] = []
    end, mark = time.monotonic() + seconds, f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < at_once:
                running.append(_start(waiting.pop(0), logs, folder, mark))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                _kill_group(one.process.pid)
                ended.append(_ended(one, one.process.returncode))
            meanwhile()
            time.sleep(POLL)
        _interrupt([one.process for one in running])
    finally:
        for one in running:
            _kill_group(one.process.pid)
            one.process.wait()
        _kill_marked(mark)
    ended += [_ended(one, None) for one in running]
    return ended + [Ended(command.name, None, 0.0, ["not begun"]) for command in waiting]


def _start(command: Command, logs: Path, folder: Path, mark: str) -> _Running:
    log = logs / f"{command.name}.log"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command.environment, MARK: mark}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command.words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Running(command, process, time.monotonic(), log)


def _ended(one: _Running, code: int | None) -> Ended:
    lines = [line for line in one.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return Ended(one.command.name, code, round(time.monotonic() - one.start, 1), [line[:160] for line in lines[-4:]])


def _interrupt(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        time.sleep(POLL)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _kill_marked(mark: str) -> None:
    """Kill what carries the mark until nothing does: a process may start another one while it is looked for."""
    words = f"{MARK}={mark}".encode()
    for _ in range(20):
        found = False
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if words in (entry / "environ").read_bytes():
                    found = True
                    os.kill(int(entry.name), signal.SIGKILL)
        if not found:
            return
        time.sleep(POLL)
