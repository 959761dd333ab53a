"""metrics.jsonl: the record of a run that is always written, and the truth."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convmixer.runs.durable import AppendedFile

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class MetricsFile:
    """Appends lines to `folder/metrics.jsonl`; `keep_bytes` cuts a resumed run's file back.

    A disk that refuses never ends a run: the lines wait in memory until it takes them.
    """

    def __init__(self, folder: Path, *, keep_bytes: int | None = None) -> None:
        self.path = folder / METRICS
        self._waiting: list[bytes] = []
        self._warned = False
        with contextlib.suppress(OSError):  # the first line finds out
            _cut(self.path, keep_bytes)
        self._file = AppendedFile(self.path)
        self._append(b"")  # the file is there from the start

    @property
    def size(self) -> int:
        """Bytes of the file so far, with what waits for room on the disk."""
        return self._file.size + sum(map(len, self._waiting))

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, `kind` train, eval, or end where a run ends before its last epoch."""
        self._waiting.append(json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n")
        self._flush()

    def close(self) -> None:
        """Try a last time to write what waits, and say where that fails."""
        self._flush()
        if self._waiting:
            logger.warning(f"{self.path}: the last {len(self._waiting)} lines could not be written and are lost")

    def _flush(self) -> None:
        if self._waiting and self._append(b"".join(self._waiting)):
            self._waiting.clear()

    def _append(self, content: bytes) -> bool:
        try:
            self._file.append(content)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning(
                    f"{self.path}: {error.strerror}: new lines wait in memory until they can be written; "
                    "the run goes on"
                )
            return False
        return True


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
