"""A split of a data set: an index -> encoded bytes or pixels, a label and a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from convmixer.data.arrays import ArraySource
from convmixer.data.cifar10 import FOLDER as CIFAR10_FOLDER
from convmixer.data.cifar10 import open_cifar10
from convmixer.data.classes import ClassMap, numbered
from convmixer.data.digits import open_digits
from convmixer.data.folders import open_folder
from convmixer.errors import RUN_FAILED, UserError
from convmixer.randomness import Stream, hashes

SETS = ("ImageNet", "cifar10", "digits")


class Source(Protocol):
    """What training and evaluation read from."""

    @property
    def classes(self) -> ClassMap: ...

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]"""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Path of the file, or a name such as `digits/train/17`."""
        ...

    def read(self, index: int) -> bytes | np.ndarray:
        """The bytes of an image file, or uint8 pixels [H, W, C]."""
        ...


class Subset:
    """Those images of a source that `indices`, int64 [n], names."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices
        self.classes = source.classes
        self.ignored = getattr(source, "ignored", {})
        self.labels: np.ndarray = source.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def read(self, index: int) -> bytes | np.ndarray:
        return self.source.read(int(self.indices[index]))


def in_memory_images(source: Source) -> np.ndarray | None:
    """All pixels uint8 [n, H, W, C] of a source that is held in memory; None for files."""
    if isinstance(source, ArraySource):
        return source.pixels
    if isinstance(source, Subset):
        whole = in_memory_images(source.source)
        return None if whole is None else whole[source.indices]
    return None


def open_split(
    set_name: str,
    data_url: str | None,
    split_dir: str,
    *,
    train: bool,
    classes: ClassMap | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Source:
    """A split of `set_name`: ImageNet (any image folder), cifar10 or digits, in any case.

    ImageNet reads the folder `data_url`/`split_dir`, which has one folder a class. `classes`: those that labels count
    in, where the training set or the weights have fixed them. `limit`: so many images, drawn by `seed`, in their old
    order. Raises UserError for a set or folder that is not there, or that is not as it should be.
    """
    source = _open(set_name, data_url, split_dir, train, classes)
    return source if limit is None else seeded_subset(source, limit, seed)


def seeded_subset(source: Source, count: int, seed: int) -> Source:
    """So many images, drawn by `seed`, in their old order; the source itself where it has no more."""
    if count >= len(source):
        return source
    draws = hashes(Stream.SUBSET, seed, np.arange(len(source)))
    return Subset(source, np.sort(np.argsort(draws, kind="stable")[:count]))


def open_unnamed(outputs: int, opener: Callable[[ClassMap | None], Source], say: Callable[[str], None]) -> Source:
    """What `opener` gives, labelled for a model of so many outputs that names no classes, which `say` is told.

    Labels are the sorted names' places, but for classes named 0 ... n-1 these numbers.
    """
    source = opener(None)
    order = numbered(source.classes) if len(source.classes) == outputs else None
    if order is None:
        return source
    say(f"the weights name no classes; the data's, 0 to {outputs - 1}, are taken for their outputs by their numbers")
    return source if order == source.classes else opener(order)


def _open(set_name: str, data_url: str | None, split_dir: str, train: bool, classes: ClassMap | None) -> Source:
    kind = set_name.lower()
    if kind == "imagenet":
        if data_url is None:
            raise UserError("--data_url: the folder of the images is needed for the set ImageNet")
        folder = Path(data_url).absolute()
        if not folder.is_dir():
            raise UserError(f"--data_url: there is no folder {folder}")
        if folder.name == CIFAR10_FOLDER or (folder / CIFAR10_FOLDER).is_dir():
            raise UserError(f"--data_url: {folder} holds CIFAR-10 batches, no image files; --set cifar10 reads them")
        return open_folder(folder / split_dir, "--train_dir" if train else "--val_dir", classes)
    if kind not in ("cifar10", "digits"):
        raise UserError(f"--set: {set_name!r} is none of {', '.join(SETS)}")
    source = open_digits(train=train) if kind == "digits" else open_cifar10(data_url, train=train)
    if classes is not None and classes != source.classes:
        raise UserError(f"--set: the classes of {kind} are not those that were trained on", exit_code=RUN_FAILED)
    return source
