"""Tar files for tests, made by Python's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def png(level: int) -> bytes:
    """An image of 4 x 3 pixels of one grey."""
    file = io.BytesIO()
    Image.fromarray(np.full((3, 4, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, prefix: str, counts: Iterable[int], classes: int = 3, first: int = 0) -> list[Path]:
    """A shard for each of the counts. Image i is of grey i and of class i mod `classes`."""
    paths, number = [], first
    for shard, count in enumerate(counts):
        members = []
        for i in range(number, number + count):
            members += [(f"{i:04d}.png", png(i % 256)), (f"{i:04d}.cls", str(i % classes).encode())]
        paths.append(write_tar(folder / f"{prefix}{shard:06d}.tar", members))
        number += count
    return paths
