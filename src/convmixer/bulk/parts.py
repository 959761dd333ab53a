"""The parts that answers are written in: which images each has, and which are done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.answers.rows import as_json_lines, as_parquet
from convmixer.data.source import Source
from convmixer.data.storage import is_remote, names_in_folder, put, read_whole
from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.durable import write_file

RECORD = "bulk.json"  # what the work is, in the folder of its parts
_MAX_RECORD = 1 << 20

_ENCODED: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {"jsonl": as_json_lines, "parquet": as_parquet}


@dataclass(frozen=True)
class Parts:
    """Answers to `images` images in the folder `out`, in parts of `size` each.

    Of a part the file is whole or not there. So nothing is lost or doubled, whatever is killed and when: what has no
    file is to be done.
    """

    out: str
    images: int
    size: int
    form: str

    @property
    def count(self) -> int:
        return -(-self.images // self.size)

    def indices(self, part: int) -> np.ndarray:
        """The images of a part, int64 [n]."""
        return np.arange(part * self.size, min((part + 1) * self.size, self.images))

    def missing(self) -> list[int]:
        """Parts that have no file."""
        there = set(names_in_folder(self.out))
        return [part for part in range(self.count) if self.name(part) not in there]

    def name(self, part: int) -> str:
        """Name of a part's file."""
        return f"part-{part:06d}.{self.form}"

    def write(self, part: int, records: Sequence[dict[str, Any]]) -> None:
        """Write a part whole. Raises UserError (exit 1) where that cannot be done."""
        _put(self.out, self.name(part), _ENCODED[self.form](records))

    def begin(self, work: dict[str, Any]) -> None:
        """Say in the folder what the work is, or make sure that it is the same as before.

        Raises UserError where the folder holds another work, or something else, or cannot be written to.
        """
        wanted = {**work, "images": self.images, "part_size": self.size, "part_format": self.form}
        if not is_remote(self.out) and os.path.lexists(self.out) and not os.path.isdir(self.out):
            raise UserError(f"OUT: {self.out} is no folder; name a new one")
        before = self._before()
        if before is None:
            if others := [name for name in names_in_folder(self.out) if not name.startswith(".")]:
                raise UserError(f"OUT: {self.out} holds other files ({others[0]} ...); name a new folder")
            _put(self.out, RECORD, (json.dumps(wanted, indent=1) + "\n").encode())
            before = self._before()
        differ = [name for name in wanted if before is None or before.get(name) != wanted[name]]
        if differ:
            raise UserError(
                f"OUT: {self.out} holds the parts of another work: {', '.join(differ)} differ; name a new folder, or "
                "run what was run before"
            )

    def _before(self) -> dict[str, Any] | None:
        location = f"{self.out.rstrip('/')}/{RECORD}"
        content = read_whole(location, _MAX_RECORD)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"OUT: {location} is damaged; name a new folder")
        return found


def _put(folder: str, name: str, content: bytes) -> None:
    if is_remote(folder):
        put(f"{folder.rstrip('/')}/{name}", content)
        return
    try:
        os.makedirs(folder, exist_ok=True)
        write_file(Path(folder, name), content)
    except OSError as error:
        raise UserError(f"{folder}/{name}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None


def fingerprint(source: Source) -> str:
    """What changes when other images are named, or in another order."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(os.fsencode(source.name(index)) + b"\0")
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a model file."""
    with Path(path).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
