"""The checkpoint folders of runs as they lie on the disk: which there are, when they were written, whose they are."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

from convmixer.run_names import by_start

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# What reading a broken manifest may raise, beside OSError.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

_NAME = re.compile(r"step_(\d{8,})|\.step_(\d{8,})\.aside")


def step_of(folder: Path) -> int | None:
    """The step that a checkpoint folder's name has, or None for another name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1] or match[2]) if match else None


def checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders below the folder of a run, by their steps.

    One that was moved aside is among them where a crash kept its successor from taking its name.
    """
    found = [path for path in root.iterdir() if path.is_dir() and step_of(path) is not None] if root.is_dir() else []
    by_step = {step_of(path) or 0: path for path in sorted(found)}  # ".step_" sorts before "step_", which wins
    return [by_step[step] for step in sorted(by_step)]


def run_of(folder: Path) -> dict[str, str]:
    """Where the other folders of a checkpoint's run lay when it was written; empty where it does not say."""
    return dict(read_manifest(folder).get("run", {}))


def written_at(folder: Path) -> float:
    """When a checkpoint was written, in seconds since 1970.

    Its manifest has it, which a copy keeps; an older one's time is its file's, a broken one's the folder's.
    """
    with contextlib.suppress(OSError, *MALFORMED):
        return float(read_manifest(folder)["written"])
    with contextlib.suppress(OSError):
        return (folder / MANIFEST).stat().st_mtime
    with contextlib.suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def newest_run(runs: list[Path]) -> Path:
    """The run whose checkpoints were written last. Says so where the names, which have the start's date, differ."""
    written = {run: max(map(written_at, checkpoints(run))) for run in runs}
    newest = max(runs, key=lambda run: (written[run], by_start(run.name)))
    named = max(runs, key=lambda run: by_start(run.name))
    if newest != named:
        logger.info(f"--resume auto: {newest} was written last and is taken, though {named.name} has the later date")
    ahead = written[newest] - time.time()
    if ahead > _CLOCK_SLACK:
        logger.warning(
            f"{newest}: was written {ahead / 60:.0f} minutes from now: this machine's clock was set back, or is wrong"
        )
    return newest


_CLOCK_SLACK = 120.0  # seconds by which the clocks of two machines may differ without a word


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder. Raises OSError or one of MALFORMED."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise TypeError
    return manifest
