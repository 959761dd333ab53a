"""How a folder of images is laid out: where its training and its evaluation images lie, found by its folders' names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from convmixer.data.folders import files_below, is_image
from convmixer.data.source import TRAIN_NAMES, VAL_NAMES
from convmixer.errors import UserError
from convmixer.printable import printable, shortened
from convmixer.run_names import is_run

_TREE = "expected FOLDER/<class>/<image>, or FOLDER/train/<class>/<image> and FOLDER/val/<class>/<image>"


@dataclass(frozen=True)
class Layout:
    """Names of the folders of both splits below the data folder, `.` for itself.

    `val_dir` None: there is none, and images of the training folder are held out. `remark`: a line on what was found,
    where that is not what the options say.
    """

    train_dir: str
    val_dir: str | None
    remark: str | None = None


def find_layout(data_url: str | Path, train_dir: str, val_dir: str, option: str = "--data_url") -> Layout:
    """The layout of an image folder; `option`: what the user sets it with.

    A name that is not its option's default was asked for, and nothing is taken in its place. Raises UserError
    for a folder that is laid out in no way that is known.
    """
    folder = Path(data_url)
    below = sorted(entry.name for entry in os.scandir(folder) if _is_shown_folder(entry))
    train = _found(folder, below, train_dir, TRAIN_NAMES)
    val = _found(folder, below, val_dir, VAL_NAMES)
    if train is not None and val is not None:
        return Layout(train, val, _remark(folder, below, train, val, (train_dir, val_dir)))
    if train is not None:
        if val_dir != VAL_NAMES[0]:
            return Layout(train, val_dir)
        return Layout(train, None, f"{printable(str(folder / train))} has no evaluation images beside it")
    if train_dir != TRAIN_NAMES[0] or val is not None or val_dir != VAL_NAMES[0]:
        return Layout(train_dir, val_dir)  # what is missing is said where it is opened
    classes = [name for name in below if _has_images(folder / name)]
    if len(classes) >= 2:
        inner = [name for name in classes if _holds_classes(folder / name)]
        if not inner:
            return Layout(".", None, f"{printable(str(folder))} has a folder per class: {shortened(classes)}")
    raise UserError(f"{option}: {printable(str(folder))} {_what_is_there(folder, below, classes)}\n{_TREE}")


def _found(folder: Path, below: list[str], asked: str, usual: tuple[str, ...]) -> str | None:
    if (folder / asked).is_dir():
        return asked
    if asked != usual[0]:
        return None
    return next((name for each in usual for name in below if name.lower() == each), None)


def _remark(folder: Path, below: list[str], train: str, val: str, asked: tuple[str, str]) -> str | None:
    others = [name for name in below if name not in (train, val) and name.lower() in VAL_NAMES]
    told = f"; {shortened(others)} is left alone, --val_dir {others[0]} takes it" if others else ""
    if (train, val) == asked and not others:
        return None
    return f"training images: {printable(str(folder / train))}, evaluation images: {printable(str(folder / val))}{told}"


def _is_shown_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith(".") and not is_run(entry.name)
    except OSError:  # a link to itself
        return False


def _has_images(folder: Path) -> bool:
    return any(is_image(path) for path in files_below(folder))


def _holds_classes(folder: Path) -> bool:
    """Whether images lie only in several folders below it, as below a split or a data set; a class has its own."""
    with os.scandir(folder) as entries:
        listed = list(entries)
    if any(is_image(entry.path) for entry in listed):
        return False
    return sum(_is_shown_folder(entry) and _has_images(Path(entry.path)) for entry in listed) > 1


def _data_set_below(folder: Path) -> Path | None:
    """The folder with several folders of images that this one leads to, itself or through one folder after another."""
    while not _holds_classes(folder):
        with os.scandir(folder) as entries:
            inner = [entry.name for entry in entries if _is_shown_folder(entry)]
        if len(inner) != 1:
            return None
        folder /= inner[0]
    return folder


def _what_is_there(folder: Path, below: list[str], classes: list[str]) -> str:
    for name in classes:
        deeper = _data_set_below(folder / name)
        if deeper is not None:
            return f"has its folders of classes deeper; did you mean {printable(str(deeper))}?"
    if len(classes) == 1:
        return f"has images in one folder only, {printable(classes[0])}"
    if any(is_image(str(path)) for path in folder.iterdir()):
        return "holds images, but no folders of classes"
    return f"has no images in its folders ({shortened(below)})" if below else "has no folders of classes"
