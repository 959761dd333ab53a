"""Checkpoints: a folder `step_00001234` written beside, made durable, renamed as a unit, verified when read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import RUN_FAILED, UserError
from convmixer.weights.read import read_weights
from convmixer.weights.torch_file import load_plain
from convmixer.weights.write import write_weights

MODEL, EMA, STATE, MANIFEST = "model.safetensors", "ema.safetensors", "state.pt", "manifest.json"
Weights = Mapping[str, torch.Tensor]

_NAME = re.compile(r"step_(\d{8,})")


def step_of(folder: Path) -> int | None:
    """The step that a checkpoint folder's name tells, or None for another name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders below the folder of a run, oldest first."""
    found = [path for path in root.iterdir() if path.is_dir() and step_of(path) is not None] if root.is_dir() else []
    return sorted(found, key=lambda path: step_of(path) or 0)


def save_checkpoint(
    root: Path,
    step: int,
    weights: Mapping[str, Weights],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
    run: Mapping[str, str] | None = None,
) -> Path:
    """Write `root/step_<step>` with the weight files of `weights`, state.pt and a manifest of their hashes.

    `run`: where the other folders of the run lie. `about` goes to `write_weights` (architecture, classes,
    preprocessing). A crash at any moment leaves the older checkpoints and at most a folder whose name starts with a
    dot. Raises UserError (exit 1) when the disk refuses.
    """
    final = root / f"step_{step:08d}"
    partial = root / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in weights.items():
            write_weights(partial / name, tensors, **about)
        torch.save(dict(state), partial / STATE)
        files = {path.name: _record(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(
            json.dumps({"format": 1, "step": step, "run": dict(run or {}), "files": files}, indent=1)
        )
        for path in partial.iterdir():
            _sync(path)
        _sync(partial)
        # The same step is saved again only by a run that was resumed there: its checkpoint has the same content.
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(root)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{final}: the checkpoint could not be written: {reason}", exit_code=RUN_FAILED) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def keep_newest(root: Path, count: int) -> None:
    """Delete all but the newest `count` checkpoints of a run."""
    for path in checkpoints(root)[:-count]:
        shutil.rmtree(path, ignore_errors=True)


def run_of(folder: Path) -> dict[str, str]:
    """Where the other folders of a checkpoint's run lay when it was written; empty where it does not say."""
    run = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("run", {})
    return dict(run) if isinstance(run, dict) else {}


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in a few words, or None: every file is read and its hash compared."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [(name, record["bytes"], record["sha256"]) for name, record in manifest["files"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is missing or broken"
    for name, size, digest in files:
        path = folder / name
        if not os.path.isfile(path):  # unlike Path.is_file, False for a name too long for any file
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
        if _hash(path) != digest:
            return f"{name} has changed since it was written"
    return None


def load_checkpoint(folder: Path) -> tuple[Weights, Weights | None, dict[str, Any]]:
    """Weights, averaged weights or None, and the rest of the state, of a folder that `fault_of` finds whole."""
    ema = read_weights(folder / EMA).state if (folder / EMA).is_file() else None
    return read_weights(folder / MODEL).state, ema, load_plain(folder / STATE)


def _record(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
