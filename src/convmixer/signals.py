"""The signals that stop a run, and whether an agent hands them on."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, ClassVar, Self

# Set by our launcher: its own process, whose end is the processes' end too.
LAUNCHER = "CONVMIXER_LAUNCHER"

# `kill` and a cluster's end of a job, Ctrl-C, a terminal or ssh connection that closes, Slurm's warning.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)


def heeded(among: Iterable[signal.Signals] = STOP_SIGNALS) -> list[signal.Signals]:
    """The stop signals, or others, but for those that are ignored, as SIGHUP is under nohup."""
    return [number for number in among if signal.getsignal(number) != signal.SIG_IGN]


class SignalHandler(ABC):
    """Within the context `receive` handles the signals of `among`; the handlers of before come back with its end.

    One that was ignored when the program began stays ignored: SIGHUP under nohup, SIGINT in a script's background.
    """

    among: ClassVar[Iterable[signal.Signals]] = STOP_SIGNALS

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self.receive) for number in heeded(self.among)}
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @abstractmethod
    def receive(self, number: int, frame: FrameType | None) -> None:
        """Called with a signal that came, between two instructions of Python's main thread."""


def has_agent() -> bool:
    """Whether our launcher or torchrun started this process, as one of several."""
    return LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
