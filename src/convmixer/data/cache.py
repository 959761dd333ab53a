"""Images kept in memory that all loader processes share, as they are read for the first time.

The memory is a file without a name (memfd_create, Linux): the small limit of a container's /dev/shm does not touch it,
and it takes up only what has been written to it. Each process writes to its own part, so that none waits for another,
or for one that was killed in the middle of an image: what is not whole is never seen.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from convmixer.data.source import Source, Wrapped

# What is kept of what was read: its pixels, uint8 [H, W, C], or itself.
Prepare = Callable[[bytes | np.ndarray], bytes | np.ndarray]

_DTYPE = np.dtype([("offset", "i8"), ("height", "i4"), ("width", "i4"), ("channels", "i4"), ("bytes", "i4")])
_ALIGNMENT = 64


class SharedArena:
    """`count` slots for images in shared memory of `size` bytes, which `writers` processes fill.

    It can be pickled for a child process. The memory is given back when the last process that has it ends. Raises
    OSError where the system gives none.
    """

    _fd = -1

    def __init__(self, count: int, size: int, writers: int) -> None:
        self.count, self.size, self.writers = count, size, writers
        self._start = -(-(count * _DTYPE.itemsize + writers * 8) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._fd = os.memfd_create("convmixer-cache")
        os.ftruncate(self._fd, self._start + size)
        self._map()

    def _map(self) -> None:
        memory = mmap.mmap(self._fd, self._start + self.size)
        self._slots = np.frombuffer(memory, _DTYPE, self.count)  # offset 0: empty
        self._data = np.frombuffer(memory, np.uint8, self.size, self._start)
        # How much of its part each writer has used: here, so that a process that takes its place goes on after it.
        self._used = np.frombuffer(memory, "i8", self.writers, self.count * _DTYPE.itemsize)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("count", "size", "writers", "_start")
        return {name: getattr(self, name) for name in kept} | {"_path": f"/proc/{os.getpid()}/fd/{self._fd}"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = state.pop("_path")
        self.__dict__.update(state)
        self._fd = os.open(path, os.O_RDWR)
        self._map()

    def get(self, index: int) -> np.ndarray | bytes | None:
        """The image in that slot: pixels that must not be changed, or an encoded file; None for an empty one."""
        slot = self._slots[index]
        offset = int(slot["offset"]) - 1
        if offset < 0:
            return None
        self._keep_order()
        size = int(slot["bytes"])
        found = self._data[offset : offset + size]
        if slot["channels"] == 0:
            return found.tobytes()
        found.setflags(write=False)
        return found.reshape(slot["height"], slot["width"], slot["channels"])

    def put(self, index: int, image: np.ndarray | bytes, writer: int) -> bool:
        """Keep an image, as long as the part of `writer`, from 0, has room for it. Returns whether it had."""
        flat = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image.reshape(-1)
        share = self.size // self.writers // _ALIGNMENT * _ALIGNMENT
        used = int(self._used[writer])
        if used + flat.size > share:
            return False
        offset = writer * share + used
        self._used[writer] = used + -(-flat.size // _ALIGNMENT) * _ALIGNMENT
        self._data[offset : offset + flat.size] = flat
        shape = (0, 0, 0) if isinstance(image, bytes) else image.shape
        # The offset last: until it is there, the slot is empty.
        slot = self._slots[index : index + 1]
        slot["height"], slot["width"], slot["channels"] = shape
        slot["bytes"] = flat.size
        self._keep_order()
        slot["offset"] = offset + 1
        return True

    def _keep_order(self) -> None:
        """Neither reads nor writes move past this: processors other than x86 let one core see another's out of order.

        What is done before a lock is given back is seen before what is done after it is taken again.
        """
        for _ in range(2):
            with self._lock:
                pass

    @property
    def kept(self) -> int:
        """Images that are there."""
        return int(np.count_nonzero(self._slots["offset"]))

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class CachedSource(Wrapped):
    """A source whose images come out of an arena once they have been read.

    `prepare` raises BadImage for images that cannot be decoded, which are never kept.
    """

    def __init__(self, source: Source, arena: SharedArena, prepare: Prepare) -> None:
        super().__init__(source)
        self.arena, self.prepare = arena, prepare
        self.writer = 0  # a loader process sets its own number

    def read(self, index: int) -> bytes | np.ndarray:
        found = self.arena.get(index)
        if found is None:
            found = self.prepare(self.source.read(index))
            self.arena.put(index, found, self.writer)
        return found
