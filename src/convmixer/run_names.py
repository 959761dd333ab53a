"""How runs are called: `2026-11-26_140501_convmixer_256_8`, in versions up to 0.1 `26-11-26_140501_...`."""

from __future__ import annotations

import re

TIME_FORMAT = "%Y-%m-%d_%H%M%S"

_RUN = re.compile(r"(?:20)?\d\d-\d\d-\d\d_\d{6}(-\d+)?_convmixer_\d+_\d+.*")


def is_run(name: str) -> bool:
    """Whether a folder of this name is that of a run."""
    return _RUN.fullmatch(name) is not None


def by_start(name: str) -> str:
    """What sorts the names of runs, old and new ones, by the time of their start."""
    return name if re.match(r"\d{4}-", name) else f"20{name}"
