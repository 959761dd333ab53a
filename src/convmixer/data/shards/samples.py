"""Which samples a shard holds and where in it they lie, as a few compact arrays.

WebDataset's naming (https://github.com/webdataset/webdataset): the members one after the other whose path is the same
up to the first dot of the base name are one sample, and what follows the dot says which part of it a member is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from convmixer.data.classes import composed
from convmixer.data.folders import DOTTED
from convmixer.data.formats.signatures import EXTENSIONS
from convmixer.data.shards.tar import Member, ReadAt, members

# Why a member is not taken, if not for its extension.
NO_FILE = "link or device"
OUTSIDE = "path that leads out"
NO_LABEL = "image without a label"
NO_IMAGE = "label without an image"
SECOND = "second image or label of a sample"

_LABELS = (".cls", ".json")
_MAX_LABEL = {".cls": 1 << 10, ".json": 1 << 20}  # bytes of such a member
_NUMBER = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Samples:
    """`offset`, `size`: int64 [n], of the image in its shard, in bytes; `label`: int64 [n].

    A label below 0 is a name: -1 the first of `names`. `keys`: the names of all image members behind each other, as
    bytes uint8; `key_ends` int64 [n]: where each ends. `ignored`: members that are not taken, counted by why.
    """

    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    keys: np.ndarray
    key_ends: np.ndarray
    names: tuple[str, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.offset)

    def key(self, index: int) -> str:
        """Name of the image's member."""
        start = int(self.key_ends[index - 1]) if index else 0
        return self.keys[start : int(self.key_ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def take(self, rows: np.ndarray) -> Samples:
        """Some of them, int64 [m], in this order."""
        starts = np.concatenate([[0], self.key_ends[:-1]])[rows]
        lengths = self.key_ends[rows] - starts
        ends = np.cumsum(lengths)
        at = np.arange(int(lengths.sum())) + np.repeat(starts - (ends - lengths), lengths)
        return Samples(
            self.offset[rows], self.size[rows], self.label[rows], self.keys[at], ends, self.names, self.ignored
        )


def concatenated(parts: Sequence[Samples]) -> Samples:
    """The samples of several shards one after the other, with one list of names."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    place = {name: -1 - number for number, name in enumerate(names)}
    labels, ends, before = [], [], 0
    for part in parts:
        own = np.array([place[name] for name in part.names] or [0], dtype=np.int64)
        labels.append(np.where(part.label < 0, own[np.clip(-1 - part.label, 0, len(own) - 1)], part.label))
        ends.append(part.key_ends + before)
        before += len(part.keys)
    return Samples(
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.size for part in parts]),
        np.concatenate(labels),
        np.concatenate([part.keys for part in parts]),
        np.concatenate(ends),
        names,
        sum((part.ignored for part in parts), Counter()),
    )


def scan(
    read: ReadAt, size: int, shard: str, on_bytes: Callable[[int], None] = lambda _: None, *, labelled: bool = True
) -> Samples:
    """The samples of a tar file of `size` bytes. `on_bytes` gets how far it has come, as more bytes.

    `labelled` False: each image is a sample, and its label is 0. Raises UserError as `members`.
    """
    found = _Found(read, labelled)
    done = 0
    for member in members(read, size, shard):
        found.add(member)
        on_bytes(member.offset - done)
        done = member.offset
    on_bytes(size - done)
    return found.samples()


class _Found:
    """Members on their way to samples."""

    def __init__(self, read: ReadAt, labelled: bool) -> None:
        self._read, self._labelled = read, labelled
        self._rows: list[tuple[int, int, int]] = []
        self._keys = bytearray()
        self._ends: list[int] = []
        self._names: dict[str, int] = {}
        self._ignored = Counter[str]()
        self._stem: str | None = None
        self._image: Member | None = None
        self._labels: dict[str, Member] = {}

    def add(self, member: Member) -> None:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, rest = base.partition(".")
        extension = (dot + rest).lower()
        why = None
        if not member.is_file:
            why = NO_FILE
        elif member.name.startswith("/") or ".." in folder.split("/"):
            why = OUTSIDE
        elif not stem:
            why = DOTTED
        elif extension not in _LABELS and extension not in EXTENSIONS:
            why = extension or "no extension"
        if why is not None:
            self._ignored[why] += 1
            return
        if not self._labelled:
            if extension not in _LABELS:
                self._put(member, 0)
            return
        if folder + slash + stem != self._stem:
            self._close()
            self._stem = folder + slash + stem
        if extension in _LABELS:
            self._ignored[SECOND] += extension in self._labels
            self._labels.setdefault(extension, member)
        elif self._image is None:
            self._image = member
        else:
            self._ignored[SECOND] += 1

    def _close(self) -> None:
        """The members so far are a sample, where an image and a label are among them."""
        label = self._label()
        if self._image is not None and label is not None:
            self._put(self._image, label)
        elif self._image is not None:
            self._ignored[NO_LABEL] += 1
        elif self._labels:
            self._ignored[NO_IMAGE] += 1
        self._image, self._labels = None, {}

    def _put(self, image: Member, label: int) -> None:
        self._rows.append((image.offset, image.size, label))
        self._keys += image.name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._keys))

    def _label(self) -> int | None:
        for extension, parse in ((".cls", _of_text), (".json", _of_json)):
            member = self._labels.get(extension)
            if member is None or self._image is None or not 0 < member.size <= _MAX_LABEL[extension]:
                continue
            label = parse(self._read(member.offset, member.size))
            if isinstance(label, str):
                return self._names.setdefault(label, -1 - len(self._names))
            if label is not None:
                return label
        return None

    def samples(self) -> Samples:
        self._close()
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 3)
        return Samples(
            rows[:, 0].copy(),
            rows[:, 1].copy(),
            rows[:, 2].copy(),
            np.frombuffer(bytes(self._keys), dtype=np.uint8),
            np.array(self._ends, dtype=np.int64),
            tuple(self._names),
            +self._ignored,
        )


def _of_text(content: bytes) -> int | str | None:
    """A number, or the name of a class."""
    text = content.decode("utf-8", "replace").strip()
    if _NUMBER.fullmatch(text) and text.isascii():
        return int(text)
    return composed(text) or None


def _of_json(content: bytes) -> int | None:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    values: Iterable[object] = (record.get(key) for key in ("label", "cls")) if isinstance(record, dict) else ()
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 10**9), None)
