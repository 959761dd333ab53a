"""A million paths in little memory: one run of bytes, which forked processes share without copying a page of it.

A list of strings would be copied, page by page, into every loader process that reads it
(https://github.com/pytorch/pytorch/issues/13246), and has four times the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def start_of_names(folder: str | os.PathLike[str] | None) -> str:
    """What the names of images below a folder begin with, to be left out where they are shown or kept."""
    return "" if folder is None else os.path.join(os.path.abspath(folder), "")


class Paths:
    """Paths in their order. `encoded`: each in the file system's encoding, with a zero byte behind it.

    `ends`: int64 [n], where in it each path ends, behind that byte.
    """

    def __init__(self, encoded: bytes, ends: np.ndarray) -> None:
        self.encoded, self._ends = encoded, ends

    @classmethod
    def of(cls, paths: Iterable[str | os.PathLike[str]] = ()) -> Paths:
        encoded = [os.fsencode(path) + b"\0" for path in paths]
        return cls(b"".join(encoded), np.cumsum([len(path) for path in encoded], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Paths]) -> Paths:
        """The paths of all parts, one part after another."""
        starts = np.cumsum([0, *(len(part.encoded) for part in parts)])
        ends = [part._ends + start for part, start in zip(parts, starts.tolist(), strict=False)]
        return cls(b"".join(part.encoded for part in parts), np.concatenate([np.empty(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if index < 0:
            index += len(self)
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self.encoded[start : int(self._ends[index]) - 1])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
