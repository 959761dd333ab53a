"""Writing of which a crash or a full disk leaves nothing half-written: a file as a whole, or lines at its end."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Put `content` beside the target, flush it to the disk and rename it: the old file or the new one is whole.

    Raises OSError where the disk refuses; the file that stood there before is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk. Raises OSError where the disk or the system refuses."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the system can flush a folder."""
    with contextlib.suppress(OSError):
        sync(folder)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left of `write_file` in a folder that no other process writes to."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


class AppendedFile:
    """A file that grows by whole pieces. It is opened for each, so that one that is deleted meanwhile begins anew.

    `size`: bytes that are surely there, those of the file that was found among them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size: int | None = None  # not known yet
        with contextlib.suppress(OSError):
            self._size = path.stat().st_size

    @property
    def size(self) -> int:
        return self._size or 0

    def append(self, piece: bytes) -> None:
        """Raises OSError where the disk refuses; a part of the piece that it took is cut off, if not now then later."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            found = os.fstat(handle).st_size
            sure = found if self._size is None else min(found, self._size)
            if found > sure:
                os.ftruncate(handle, sure)
            self._size = sure
            rest = memoryview(piece)
            try:
                # Of a disk that is nearly full a write takes a part; the next one tells why.
                while rest:
                    rest = rest[os.write(handle, rest) :]
            except OSError:
                os.ftruncate(handle, sure)
                raise
        finally:
            os.close(handle)  # on a network's disk the refusal may come only here
        self._size = sure + len(piece)
