"""Ranges of bytes of remote files, of which the chunks that were read last are kept: reading in order asks seldom."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

from convmixer.data.storage import read_range

CHUNK = 4 << 20  # bytes


class Chunks:
    """The last `count` chunks of any files. Threads share them; one that another asks for already is waited for."""

    def __init__(self, count: int = 16) -> None:
        self._count = count
        self._start_anew()

    def _start_anew(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()

    def read(self, location: str, size: int, start: int, stop: int) -> bytes:
        """The bytes `start` to `stop` of a file of `size`, fewer where it ends. Raises as `read_range`."""
        stop = min(stop, size)
        parts = []
        for number in range(start // CHUNK, -(-stop // CHUNK)):
            first = number * CHUNK
            chunk = self._chunk(location, number, min(first + CHUNK, size))
            parts.append(chunk[max(start - first, 0) : stop - first])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _chunk(self, location: str, number: int, stop: int) -> bytes:
        if self._process != os.getpid():
            # Forked: the lock may be held by a thread that is not in this process, and an answer may never come.
            self._start_anew()
        key = (location, number)
        with self._lock:
            future = self._kept.get(key)
            is_ours = future is None
            if future is None:
                future = self._kept[key] = Future()
                if len(self._kept) > self._count:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        if is_ours:
            try:
                future.set_result(read_range(location, number * CHUNK, stop))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
        return future.result()

    def __getstate__(self) -> dict[str, Any]:
        return {"_count": self._count}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._count = state["_count"]
        self._start_anew()
