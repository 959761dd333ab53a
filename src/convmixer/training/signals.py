"""Stop signals: the first asks the training loop for a clean stop, a second Ctrl-C quits at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from convmixer.signals import SignalHandler, heeded

if TYPE_CHECKING:
    from convmixer.distributed.processes import Processes

STOP = "stop"


class Stopped(Exception):
    """The run was stopped by a signal and saved at `step`, in the folder `checkpoint` (known to the first process).

    `exit_code` is 128 plus the signal's number.
    """

    def __init__(self, number: int, step: int = 0, checkpoint: Path | None = None) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code, self.step, self.checkpoint = 128 + number, step, checkpoint


class Interrupted(Exception):
    """An evaluation was left because a signal came."""


class StopSignals(SignalHandler):
    """Within the context `received` is the first stop signal (`signals.STOP_SIGNALS`), or None."""

    def __init__(self) -> None:
        super().__init__()
        self.received: int | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


class StopRequest:
    """Called between the batches of an evaluation: whether a process of the run received a stop signal.

    Each process evaluates its own part, with no collective before the end, so that they need not be at the same batch:
    who received a signal posts a word in the processes' store, where the others look every `seconds`.
    """

    def __init__(self, signals: StopSignals, processes: Processes, seconds: float = 1.0) -> None:
        self.signals, self.processes, self.seconds = signals, processes, seconds
        self._next = time.monotonic() + seconds

    def __call__(self) -> bool:
        if self.signals.received is not None:
            self.processes.post(STOP)
            return True
        if time.monotonic() < self._next:
            return False
        is_posted = self.processes.is_posted(STOP)
        self._next = time.monotonic() + self.seconds
        return is_posted


def answer_only_the_parent() -> None:
    """Make this loader process leave the signals of the run to its parent, and end when the parent says so or is gone.

    Ctrl-C and a closed terminal reach the whole process group, an agent or a cluster signals all processes of a job:
    a loader process that died of it would keep the run from saving.
    """
    for number in heeded():
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS cannot tell who sent it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_parent, args=(os.getppid(),), name="signals", daemon=True).start()


def _await_parent(parent: int) -> None:
    while os.getppid() == parent:
        sent = signal.sigtimedwait({signal.SIGTERM}, 1.0)
        if sent is not None and sent.si_pid == parent:  # DataLoader ends its processes by it
            break
    os._exit(0)
