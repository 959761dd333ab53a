"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
import re
from pathlib import Path

# More than the fastest GPU needs, each with its batches in shared memory.
_MAX_WORKERS = 16


def usable_cores() -> int:
    """Cores that this process may run on, and that its control group lets it use up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = re.fullmatch(r"(\d+) (\d+)", text_of("/sys/fs/cgroup/cpu.max").strip())
    return max(1, min(cores, int(quota[1]) // int(quota[2]))) if quota else cores


def workers(wanted: int | None) -> int:
    """How many processes or threads read images: as many as are wanted, else one per core."""
    return min(cores_of_this_process(), _MAX_WORKERS) if wanted is None else wanted


def cores_of_this_process() -> int:
    """Its share where several processes of a run are on this machine, at least one."""
    return max(usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1), 1)


def text_of(path: str) -> str:
    """What a file of the system says; nothing where it is not there."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
