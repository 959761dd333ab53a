"""The one file that a session on a GPU leaves besides its summary: logs and results, renewed whole."""

from __future__ import annotations

import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 16 * 2**20  # bytes of the archive
MAX_LOG = 2**20  # of a log within it, of which the middle is left out


def renew(folder: Path, archive: Path, max_bytes: int = MAX_BYTES) -> list[str]:
    """Write the files below `folder` into `archive`, the smallest first; gives the names of those that did not fit.

    A reader finds the archive of before or the new one, never a part: it is renamed when it is whole.
    """
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        with suppress(OSError):  # folders, and what is renamed while we look
            files[str(path.relative_to(folder))] = _content(path)
    left_out, size = [], 0
    temporary = archive.with_name(f"{archive.name}.part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(files.items(), key=lambda item: len(item[1])):
            # With room for the two headers of an entry.
            packed = len(zlib.compress(content)) + 2 * len(name) + 256
            if size + packed > max_bytes:
                left_out.append(name)
                continue
            size += packed
            file.writestr(name, content)
    temporary.replace(archive)
    return left_out


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".log" or len(content) <= MAX_LOG:
        return content
    half = MAX_LOG // 2
    return content[:half] + b"\n... the middle of this log is left out ...\n" + content[-half:]
