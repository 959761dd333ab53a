"""The record of a run: metrics.jsonl, which is the truth, and TensorBoard events beside it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.runs.durable import AppendedFile
from convmixer.training.logging.tensorboard import EventFile

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class MetricLogger:
    """Appends to `folder/metrics.jsonl` and to an event file in `folder`; `keep_bytes` cuts a resumed run's file back.

    A disk that refuses never ends a run: the events end, with one warning, and the lines of metrics.jsonl wait in
    memory until it takes them.
    """

    def __init__(self, folder: Path, *, keep_bytes: int | None = None, purge_step: int | None = None) -> None:
        self.folder = folder
        self._waiting: list[bytes] = []
        self._warned = False
        self._events: EventFile | None = None
        with contextlib.suppress(OSError):  # the first line finds out
            _cut(folder / METRICS, keep_bytes)
        self._metrics = AppendedFile(folder / METRICS)
        try:
            self._metrics.append(b"")  # the file is there from the start
            self._events = EventFile(folder, purge_step)
        except OSError as error:
            self._warn(error)

    @property
    def bytes(self) -> int:
        """Length of metrics.jsonl so far, with what waits for room on the disk."""
        return self._metrics.size + sum(map(len, self._waiting))

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics, `kind` train or eval; the numbers go to the events as `kind/name`."""
        self._waiting.append(json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n")
        self._flush()
        if self._events is not None:
            numbers = {f"{kind}/{name}": v for name, v in values.items() if isinstance(v, int | float)}
            try:
                self._events.scalars(step, numbers)
            except OSError as error:
                self._warn(error)

    def picture(self, name: str, image: np.ndarray) -> None:
        """Put a picture, uint8 [H, W, 3], into the events."""
        if self._events is not None:
            try:
                self._events.picture(name, image)
            except OSError as error:
                self._warn(error)

    def close(self) -> None:
        """Try a last time to write what waits, and say where that fails."""
        self._flush()
        if self._waiting:
            logger.warning(
                f"{self.folder / METRICS}: the last {len(self._waiting)} lines could not be written and are lost"
            )

    def _flush(self) -> None:
        if self._waiting:
            try:
                self._metrics.append(b"".join(self._waiting))
            except OSError as error:
                self._warn(error)
            else:
                self._waiting.clear()

    def _warn(self, error: OSError) -> None:
        """Once for both: they lie on one disk."""
        self._events = None
        if not self._warned:
            self._warned = True
            logger.warning(
                f"{self.folder}: {error.strerror}: no more TensorBoard events, and new lines of "
                f"{METRICS} wait in memory until they can be written; the run goes on"
            )


def _cut(path: Path, keep_bytes: int | None) -> None:
    """Cut a file of lines back to a length, and to whole lines: a loss of power may leave the half of one."""
    if not path.is_file():
        return
    size = path.stat().st_size
    keep = size if keep_bytes is None else min(size, keep_bytes)
    with path.open("rb") as file:
        back = min(keep, 1 << 16)
        file.seek(keep - back)
        tail = file.read(back)
    if b"\n" in tail or back == keep:
        keep -= len(tail) - (tail.rfind(b"\n") + 1)
    if keep < size:
        os.truncate(path, keep)
