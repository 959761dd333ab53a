"""The images of a split as they lie, listed without a judgement, so that a faulty one is listed too."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from convmixer.data.folders import Files, class_folders
from convmixer.data.paths import Paths
from convmixer.data.source import Source
from convmixer.data.sources import imagenet
from convmixer.data.splits import FOLDERS, open_split, source_of
from convmixer.data.storage import joined


@dataclass
class Split:
    """The images of `source`, whose `labels` are positions in `classes`. `folder`: where they lie.

    `folders`: those of each class on disk, where it has any.
    """

    name: str
    folder: str
    classes: tuple[str, ...]
    source: Source
    folders: tuple[tuple[str, ...], ...] = field(default=())

    @cached_property
    def paths(self) -> list[str]:
        """Names of the images, in their order."""
        return [self.source.name(index) for index in range(len(self.source))]

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels

    @property
    def ignored(self) -> Counter[str]:
        """Entries that are no images by their name, counted by why."""
        return Counter(self.source.ignored)

    def counts(self) -> dict[str, int]:
        """Images of each class, in the order of the classes."""
        found = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=True))


def list_split(name: str, data: str, split_dir: str, option: str) -> Split:
    """The images of the split `split_dir` of `data`, by the rules of training, each in the classes of this split alone.

    `option`: what the user sets the split with. Raises UserError where there is none.
    """
    if source_of(FOLDERS, data, split_dir) == FOLDERS:
        return _of_folder(name, imagenet.checked_folder(data) / split_dir, option)
    source, place = open_split(FOLDERS, data, split_dir, train=name == "train"), joined(data, split_dir)
    # A split need not be a folder: of a list it is the rows with its name.
    return Split(name, place if os.path.isdir(place) else joined(None, data), source.classes.names, source)


def _of_folder(name: str, folder: Path, option: str) -> Split:
    """Of classes without images and the like nothing is refused here: they are findings."""
    found, ignored = class_folders(folder, option)
    labels = np.repeat(np.arange(len(found)), [len(each.images) for each in found])
    files = Files(Paths.joined([each.images for each in found]), labels, ignored=ignored)
    names, folders = tuple(each.name for each in found), tuple(tuple(each.folders) for each in found)
    return Split(name, str(folder), names, files, folders)
