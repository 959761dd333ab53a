"""A split that lies in tar shards, read by index."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from convmixer.data.classes import ClassMap, refuse_single
from convmixer.data.limits import MAX_BYTES, BadImage
from convmixer.data.shards.chunks import Chunks
from convmixer.data.shards.index import ShardIndex, index_of
from convmixer.data.shards.locations import find_shards, names_shards
from convmixer.data.shards.manifest import PackedSplit, read_packed
from convmixer.data.source import Source, Subset
from convmixer.data.storage import is_remote, joined, names_in_folder, parent, read_range
from convmixer.errors import RUN_FAILED, UserError

logger = logging.getLogger(__name__)

MAX_CLASSES = 1_000_000

_OTHER_FILE = re.compile(r"\.(csv|tsv|jsonl?|parquet|arrow)$", re.IGNORECASE)
_PASSING = (errno.EIO, errno.ESTALE)  # of a network's disk that has lost its server's answer


@dataclass(frozen=True, eq=False)
class ShardSource:
    """The images of shards with their labels, int64 [n]; forked loader processes share all of it."""

    index: ShardIndex
    labels: np.ndarray
    classes: ClassMap
    ignored: Counter[str]
    _chunks: Chunks = field(default_factory=Chunks)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def is_remote(self) -> bool:
        return is_remote(self.index.shards[0])

    def name(self, index: int) -> str:
        """Location of the shard and the member's name in it, as `/data/train-000000.tar/000000017.jpg`."""
        return f"{self.index.shards[self.index.shard[index]]}/{self.index.samples.key(index)}"

    def read(self, index: int) -> bytes:
        """The bytes of the image.

        Raises BadImage for what is too large, or cannot be read from a disk; UserError (exit 1) where a server gives
        nothing.
        """
        shard, start = int(self.index.shard[index]), int(self.index.samples.offset[index])
        location, size = self.index.shards[shard], int(self.index.samples.size[index])
        if size > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
        if self.is_remote:
            return self._chunks.read(location, int(self.index.sizes[shard]), start, start + size)
        for is_last in (False, True):
            try:
                return read_range(location, start, start + size)
            except OSError as error:
                if is_last or error.errno not in _PASSING:
                    raise BadImage(error.strerror or "cannot be read") from error
        raise AssertionError("the last attempt returns or raises")


def index_in_shards(source: Source) -> ShardIndex | None:
    """Where the images of a source lie that are read from shards; None for another one."""
    if isinstance(source, ShardSource):
        return source.index
    if isinstance(source, Subset):
        whole = index_in_shards(source.source)
        return None if whole is None else whole.take(source.indices)
    return None


def has_shards(data_url: str, split_dir: str) -> bool:
    """Whether the split lies in shards: an address, a pattern of tar files, or a folder of some and no other folder."""
    place = joined(data_url, split_dir)
    if is_remote(place) or names_shards(place):
        return names_shards(place) or not _OTHER_FILE.search(place)
    # ILSVRC2012 comes as one tar file per class, which may still lie beside the folders that were made of them.
    has_folders = any(os.path.isdir(os.path.join(place, name)) for name in names_in_folder(place) if name[0] != ".")
    return not has_folders and bool(find_shards(data_url, split_dir))


def open_shards(data_url: str | None, split_dir: str, option: str, classes: ClassMap | None) -> ShardSource:
    """The split's images, shard after shard. `option`: what the user sets `split_dir` with; `classes`: as `open_folder`
    has it.

    Raises UserError where there are no shards, and for what `index_of` refuses.
    """
    place = joined(data_url, split_dir)
    packed = None if names_shards(place) else read_packed(place.rstrip("/"))
    shards = packed.shards if packed is not None else find_shards(data_url, split_dir)
    if not shards:
        raise UserError(f"{option}: there are no shards (*.tar) at {place}")
    packed = packed or _packed_by(shards)
    index = index_of(shards, packed)
    if len(index) == 0:
        others = ", ".join(f"{why} {count}" for why, count in index.samples.ignored.most_common(6))
        raise UserError(
            f"{option}: no image in {shards[0]} (of {len(shards)} shards) has a label (.cls or .json beside it)"
            + (f"; ignored: {others}" if others else ""),
            exit_code=RUN_FAILED,
        )
    named = index.samples.names if packed is None else packed.classes
    labels, known = _labelled(index, named, packed is not None, option, place, classes)
    return ShardSource(index, labels, known, index.samples.ignored)


def _packed_by(shards: list[str]) -> PackedSplit | None:
    """Of a pattern of shards that `pack` has written, what it says of them."""
    if len({parent(shard) for shard in shards}) > 1:
        return None
    packed = read_packed(parent(shards[0]))
    return packed if packed is not None and set(shards) <= set(packed.shards) else None


def _labelled(
    index: ShardIndex, named: tuple[str, ...], is_packed: bool, option: str, place: str, classes: ClassMap | None
) -> tuple[np.ndarray, ClassMap]:
    """Labels int64 [n] and what they count in: `classes` where they are given."""
    label = index.samples.label
    if int(label.max()) >= MAX_CLASSES:
        raise UserError(
            f"{option}: {place} has the label {int(label.max())}; at most {MAX_CLASSES} classes are numbered",
            exit_code=RUN_FAILED,
        )
    if is_packed:
        own = ClassMap(named)
    elif not named:
        own = ClassMap(tuple(str(number) for number in range(int(label.max()) + 1)))
        if classes is not None and len(own) <= len(classes) and not set(own.names) <= classes.labels.keys():
            logger.info(f"{place}: its classes are numbers; they are taken for the places of the {len(classes)} names")
            return label, classes
    else:
        # Where one label is no number, none is: all are names.
        numbers = {int(each): str(each) for each in np.unique(label[label >= 0])}
        own = ClassMap(tuple(sorted({*named, *numbers.values()})))
        place_of = {-1 - at: own.labels[name] for at, name in enumerate(named)}
        place_of |= {number: own.labels[name] for number, name in numbers.items()}
        values, inverse = np.unique(label, return_inverse=True)
        label = np.array([place_of[int(value)] for value in values], dtype=np.int64)[inverse]
    if classes is None:
        refuse_single(own, f"{option}: {place}")
        return label, own
    if own == classes:
        return label, classes
    here = np.unique(label).tolist()
    unknown = [own.names[each] for each in here if classes.index(own.names[each]) is None]
    if unknown:
        raise UserError(
            f"{option}: {place} has a class {unknown[0]!r} that the {len(classes)} training classes do not have",
            exit_code=RUN_FAILED,
        )
    translated = np.array([classes.index(name) if classes.index(name) is not None else -1 for name in own.names])
    return translated[label].astype(np.int64), classes
