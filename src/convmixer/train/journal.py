"""The record of a run: metrics.jsonl, which is the truth, and TensorBoard events beside it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from convmixer.errors import RUN_FAILED, UserError
from convmixer.progress import note

METRICS = "metrics.jsonl"


class Journal:
    """Appends to `folder/metrics.jsonl` and to event files in `folder`; `keep_bytes` cuts a resumed run's file back."""

    def __init__(self, folder: Path, *, keep_bytes: int | None = None, purge_step: int | None = None) -> None:
        path = folder / METRICS
        if keep_bytes is not None and path.is_file() and path.stat().st_size > keep_bytes:
            os.truncate(path, keep_bytes)
        self._file = path.open("a", encoding="utf-8")
        self._events: SummaryWriter | None = None
        try:
            self._events = SummaryWriter(str(folder), purge_step=purge_step)
        except OSError as error:
            note(f"no TensorBoard events: {folder}: {error.strerror}")

    @property
    def bytes(self) -> int:
        """Length of metrics.jsonl so far."""
        return self._file.tell()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics, `kind` train or eval; the numbers go to the events as `kind/name`.

        Raises UserError (exit 1) where the disk refuses: a run without a record would be lost work.
        """
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
        if self._events is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._events.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, image: np.ndarray) -> None:
        """Put a picture, uint8 [H, W, 3], into the events."""
        if self._events is not None:
            self._events.add_image(name, image, dataformats="HWC")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the line that the disk refused is still in the buffer
            self._file.close()
        if self._events is not None:
            self._events.close()
