"""Checkpoints: a folder `step_00001234` written beside, made durable, renamed as a unit, verified when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.runs.checkpoints import MALFORMED, MANIFEST, checkpoints, read_manifest, step_of
from convmixer.runs.durable import sync
from convmixer.weights.read import read_weights
from convmixer.weights.torch_file import load_plain
from convmixer.weights.write import write_weights

MODEL, EMA, STATE = "model.safetensors", "ema.safetensors", "state.pt"
FORMAT = 2  # of the manifest; 1 lacks `written` and its own `sha256`
Weights = Mapping[str, torch.Tensor]


def save_checkpoint(
    root: Path,
    step: int,
    weights: Mapping[str, Weights],
    state: Mapping[str, Any],
    metadata: Mapping[str, Any],
    run: Mapping[str, str] | None = None,
) -> Path:
    """Write `root/step_<step>` with the weight files of `weights`, state.pt and a manifest of their hashes.

    `run`: where the other folders of the run lie. `metadata` goes to `write_weights` (architecture, classes,
    preprocessing). A crash at any moment leaves the older checkpoints, one of this step that was there before or the
    new one, and folders whose names start with a dot. Raises UserError (exit 1) when the disk refuses.
    """
    final = root / f"step_{step:08d}"
    for attempt in (1, 2):
        try:
            _write(final, step, weights, state, metadata, run or {})
            break
        except (OSError, RuntimeError, UserError) as error:
            cause = _cause(error)
            if attempt == 1 and isinstance(cause, FileNotFoundError):
                continue  # somebody deleted the run's folder in the middle of it
            if isinstance(error, UserError):
                raise
            reason = cause.strerror if cause is not None else first_line(error)
            raise UserError(f"{final}: the checkpoint could not be written: {reason}", exit_code=RUN_FAILED) from error
    return final


def _write(
    final: Path,
    step: int,
    weights: Mapping[str, Weights],
    state: Mapping[str, Any],
    metadata: Mapping[str, Any],
    run: Mapping[str, str],
) -> None:
    partial, aside = (final.with_name(f".{final.name}.{suffix}") for suffix in ("partial", "aside"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in weights.items():
            write_weights(partial / name, tensors, **metadata)
        with (partial / STATE).open("wb") as file:
            torch.save(dict(state), file)
        files = {name: _record(partial / name) for name in sorted([*weights, STATE])}
        manifest = {"format": FORMAT, "step": step, "written": time.time(), "run": dict(run), "files": files}
        manifest["sha256"] = _digest(manifest)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in partial.iterdir():
            sync(path)
        sync(partial)
        if final.exists():
            # A run that was resumed at an older step comes by here again.
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        partial.rename(final)
        sync(final.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        if aside.exists() and not final.exists():
            with contextlib.suppress(OSError):
                aside.rename(final)
        shutil.rmtree(partial, ignore_errors=True)


def keep_newest(root: Path, count: int, saved: int | None = None) -> None:
    """Delete all but the newest `count` checkpoints of a run, and what a crash left of others.

    `saved`: the step that was just saved. Later ones, which a run has left that was resumed before them, do not push
    it out: they stay until the run comes by their steps.
    """
    kept = [path for path in checkpoints(root) if saved is None or (step_of(path) or 0) <= saved]
    unfinished = [path for path in root.glob(".step_*") if path.suffix == ".partial" or _is_replaced(path)]
    for path in kept[:-count] + unfinished:
        shutil.rmtree(path, ignore_errors=True)


def _is_replaced(aside: Path) -> bool:
    return step_of(aside) is not None and aside.with_name(aside.stem.removeprefix(".")).exists()


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in a few words, or None: every file is read and its hash compared."""
    try:
        manifest = read_manifest(folder)
        files = [(name, record["bytes"], record["sha256"]) for name, record in manifest["files"].items()]
        texts = [*manifest.get("run", {}), *manifest.get("run", {}).values()]
    except (OSError, *MALFORMED):
        return f"{MANIFEST} is missing or broken"
    if not all(isinstance(text, str) for text in texts):
        return f"{MANIFEST} is missing or broken"
    if manifest.get("format") not in (1, FORMAT):
        return f"{MANIFEST} is of a format that this convmixer does not know"
    if manifest["format"] != 1 and manifest.get("sha256") != _digest(manifest):
        return f"{MANIFEST} has changed since it was written"
    for name in (MODEL, STATE):
        if name not in manifest["files"]:
            return f"{MANIFEST} does not name {name}"
    for name, size, digest in files:
        path = folder / name
        if Path(name).name != name:
            return f"{MANIFEST} names a file of another folder"
        if not os.path.isfile(path):  # unlike Path.is_file, False for a name too long for any file
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
        if _hash(path) != digest:
            return f"{name} has changed since it was written"
    return None


def load_checkpoint(folder: Path) -> tuple[Weights, Weights | None, dict[str, Any]]:
    """Weights, averaged weights or None, and the rest of the state, of a folder that `find_damage` finds whole."""
    ema = read_weights(folder / EMA).state if EMA in read_manifest(folder)["files"] else None
    return read_weights(folder / MODEL).state, ema, load_plain(folder / STATE)


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over all of a manifest but its own `sha256`."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _cause(error: BaseException) -> OSError | None:
    """What the system said, below what a library made of it: torch.save hides a full disk behind its own error."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below
        below = below.__cause__ or below.__context__
    return None


def _record(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
