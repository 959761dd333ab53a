"""A tar file that is there whole or not at all, the same to the bit for the same members."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from pathlib import Path

from convmixer.data.shards.tar import BLOCK
from convmixer.runs.durable import sync_folder

_END = bytes(2 * BLOCK)


class ShardWriter:
    """Writes beside `path` what takes its name in `finish`. Raises OSError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.images = path, 0, 0
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._digest = hashlib.sha256()
        self._file = self._temporary.open("wb")

    def takes(self, content: bytes, limit: int) -> bool:
        """Whether one more image and its label fit into `limit` bytes; a first one always does."""
        return self.images == 0 or self.size + 4 * BLOCK + _blocks(len(content)) + len(_END) <= limit

    def add(self, key: str, extension: str, content: bytes, label: int) -> None:
        self._member(key + extension, content)
        self._member(key + ".cls", str(label).encode())
        self.images += 1

    def finish(self) -> dict[str, object]:
        """Close the file and give it its name. Returns name, images, bytes and SHA-256 as a manifest has them."""
        self._write(_END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)
        return {
            "name": self.path.name,
            "images": self.images,
            "bytes": self.size,
            "sha256": self._digest.hexdigest(),
        }

    def abandon(self) -> None:
        """Take away what is not finished."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _member(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)  # of no owner and no time
        info.size = len(content)
        self._write(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(_blocks(len(content)) - len(content)))

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)


def _blocks(count: int) -> int:
    """Bytes of the whole blocks that so many bytes take."""
    return -(-count // BLOCK) * BLOCK
