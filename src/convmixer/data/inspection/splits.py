"""The files of a split as they lie in its folder, listed without a judgement, so that a faulty one is listed too."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from convmixer.data.folders import EXTENSIONS, class_folders, files_below, is_image
from convmixer.errors import UserError

BESIDE = "beside the class folders"
DOTTED = "name begins with a dot"


@dataclass
class Split:
    """`paths`: the images, class after class, each sorted; `labels`: the position of each one's class in `classes`.

    `ignored`: entries that are no images by their name, counted by why: their extension, or one of the texts above.
    """

    name: str
    folder: Path
    classes: tuple[str, ...] = ()
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """Images of each class, in the order of the classes."""
        found = Counter(self.labels)
        return {name: found[label] for label, name in enumerate(self.classes)}


def list_split(name: str, folder: Path, option: str) -> Split:
    """The images below `folder`/<class>, by the rules of training. Raises UserError where there are no class folders.

    `option`: what the user sets this folder with.
    """
    if not folder.is_dir():
        raise UserError(f"{option}: there is no folder {folder}")
    names, loose = class_folders(folder)
    if not names:
        raise UserError(f"{option}: {folder} holds no folders of classes; expected {folder}/<class>/<image>")
    split = Split(name, folder, tuple(names))
    if loose:
        split.ignored[BESIDE] = loose
    for label, class_name in enumerate(names):
        for path in files_below(folder / class_name):
            if is_image(path, EXTENSIONS):
                split.paths.append(path)
                split.labels.append(label)
            else:
                split.ignored[_why_ignored(path)] += 1
    return split


def _why_ignored(path: str) -> str:
    name = os.path.basename(path)
    return DOTTED if name.startswith(".") else os.path.splitext(name)[1].lower() or "no extension"
