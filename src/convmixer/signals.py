"""The signals that stop a run, and whether an agent hands them on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

# Set by our launcher: its own process, whose end is the processes' end too.
LAUNCHER = "CONVMIXER_LAUNCHER"

# `kill` and a cluster's end of a job, Ctrl-C, a terminal or ssh connection that closes, Slurm's warning.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)


def heeded(among: Iterable[signal.Signals] = STOP_SIGNALS) -> list[signal.Signals]:
    """The stop signals, or others, but for those that are ignored, as SIGHUP is under nohup."""
    return [number for number in among if signal.getsignal(number) != signal.SIG_IGN]


def has_agent() -> bool:
    """Whether our launcher or torchrun started this process, as one of several."""
    return LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
