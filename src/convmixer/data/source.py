"""What training and evaluation read from: an index -> encoded bytes or pixels, a label and a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.randomness import Stream, hashes

TRAIN_NAMES, VAL_NAMES = ("train", "training"), ("val", "valid", "validation", "test", "eval")


class Source(Protocol):
    """Images with their labels."""

    @property
    def classes(self) -> ClassMap: ...

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]"""
        ...

    @property
    def ignored(self) -> Mapping[str, int]:
        """What lies beside the images and is none, counted by why."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Path of the file, or a name such as `digits/train/17`."""
        ...

    def read(self, index: int) -> bytes | np.ndarray:
        """The bytes of an image file, or uint8 pixels [H, W, C]."""
        ...


class Unnamed:
    """Images that have no names, and nothing beside them; they are called by their place behind `origin`, as
    `digits/train/17`."""

    labels: np.ndarray
    origin: str

    @property
    def ignored(self) -> Mapping[str, int]:
        return {}

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.origin}/{index}"


@dataclass(frozen=True)
class ArraySource(Unnamed):
    """A small set that is held in memory: `pixels` uint8 [n, H, W, C], `labels` int64 [n]."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: ClassMap
    origin: str

    def read(self, index: int) -> np.ndarray:
        pixels: np.ndarray = self.pixels[index]
        return pixels


class Wrapped:
    """The images of a source, with a `read` of its own in a class that derives from this."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.classes, self.labels, self.ignored = source.classes, source.labels, source.ignored

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)


class Subset:
    """Those images of a source that `indices`, int64 [n], names."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices
        self.classes, self.ignored = source.classes, source.ignored
        self.labels: np.ndarray = source.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def read(self, index: int) -> bytes | np.ndarray:
        return self.source.read(int(self.indices[index]))


def seeded_subset(source: Source, count: int | None, seed: int) -> Source:
    """So many images, drawn by `seed`, in their old order; the source itself where it has no more, or for None."""
    if count is None or count >= len(source):
        return source
    draws = hashes(Stream.SUBSET, seed, np.arange(len(source)))
    return Subset(source, np.sort(np.argsort(draws, kind="stable")[:count]))


def names_of_split(split_dir: str, *, train: bool) -> tuple[str, ...]:
    """What a split may be called that the option names `split_dir`: anything usual, where that is usual too."""
    usual = TRAIN_NAMES if train else VAL_NAMES
    return (split_dir, *usual) if split_dir in usual else (split_dir,)


def is_in_memory(source: Source) -> bool:
    """Whether `in_memory_images` has pixels; it copies those of a subset."""
    return is_in_memory(source.source) if isinstance(source, Subset) else isinstance(source, ArraySource)


def in_memory_images(source: Source) -> np.ndarray | None:
    """All pixels uint8 [n, H, W, C] of a source that is held in memory; None for files."""
    if isinstance(source, ArraySource):
        return source.pixels
    if isinstance(source, Subset):
        whole = in_memory_images(source.source)
        return None if whole is None else whole[source.indices]
    return None
