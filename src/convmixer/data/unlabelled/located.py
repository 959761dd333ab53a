"""Image files by their paths and addresses, and several sources as one."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.image_file import read_image_file
from convmixer.data.limits import MAX_BYTES, BadImage
from convmixer.data.paths import Paths
from convmixer.data.source import Source
from convmixer.data.storage import check_address, download, is_remote
from convmixer.errors import UserError


class LocatedFiles(Files):
    """Image files, each on a disk or at an address. Raises UserError where nothing reads addresses of this kind."""

    def __init__(self, paths: Paths | Sequence[str], ignored: Mapping[str, int] | None = None) -> None:
        super().__init__(paths, ignored=ignored)
        if b"://" in self.paths.encoded:
            check_address(next(filter(is_remote, self.paths)))

    def read(self, index: int) -> bytes:
        """The file's bytes. Raises BadImage for what cannot be read or fetched."""
        location = self.name(index)
        if not is_remote(location):
            return read_image_file(location)
        try:
            return download(location, MAX_BYTES)
        except UserError as error:
            # The name of the image stands before the reason wherever it is told.
            raise BadImage(str(error).removeprefix(f"{location}: ").splitlines()[0]) from None


class EncodedImages:
    """Images in memory, without labels: the bytes of their files or uint8 pixels [H, W, C], and their names."""

    def __init__(self, names: Sequence[str], images: Sequence[bytes | np.ndarray]) -> None:
        self._names, self._images = list(names), list(images)
        self.labels, self.classes, self.ignored = np.full(len(self._names), -1), ClassMap(()), Counter[str]()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> bytes | np.ndarray:
        return self._images[index]


class Joined:
    """The images of several sources, one source after the other, without their labels."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self._starts = [0, *accumulate(len(source) for source in self.sources)]
        self.ignored: Counter[str] = sum((Counter(source.ignored) for source in self.sources), Counter())
        self.labels, self.classes = np.full(self._starts[-1], -1), ClassMap(())

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, index: int) -> str:
        source, place = self._place(index)
        return source.name(place)

    def read(self, index: int) -> bytes | np.ndarray:
        source, place = self._place(index)
        return source.read(place)

    def _place(self, index: int) -> tuple[Source, int]:
        number = bisect_right(self._starts, index) - 1
        return self.sources[number], index - self._starts[number]


def joined(sources: Sequence[Source]) -> Source:
    """Several sources as one; a single one is itself."""
    return sources[0] if len(sources) == 1 else Joined(sources)
