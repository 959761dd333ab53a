"""The files of a split as they lie in its folder, listed without a judgement, so that a faulty one is listed too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from convmixer.data.folders import class_folders


@dataclass
class Split:
    """`paths`: the images, class after class, each sorted; `labels`: the position of each one's class in `classes`.

    `ignored`: entries that are no images by their name, counted by why. `folders`: those of each class on disk.
    """

    name: str
    folder: Path
    classes: tuple[str, ...] = ()
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    folders: tuple[tuple[str, ...], ...] = ()

    def counts(self) -> dict[str, int]:
        """Images of each class, in the order of the classes."""
        found = Counter(self.labels)
        return {name: found[label] for label, name in enumerate(self.classes)}


def list_split(name: str, folder: Path, option: str) -> Split:
    """The images below `folder`/<class>, by the rules of training. Raises UserError where there are no class folders.

    `option`: what the user sets this folder with.
    """
    found, ignored = class_folders(folder, option)
    split = Split(name, folder, tuple(each.name for each in found), ignored=ignored)
    split.folders = tuple(tuple(each.folders) for each in found)
    for label, each in enumerate(found):
        split.paths += list(each.images)
        split.labels += [label] * len(each.images)
    return split
