"""Image files on disk: a folder with one folder per class, or a plain list of files. Nothing is ever written there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from convmixer.data.classes import ClassMap, composed, labelled
from convmixer.data.formats.signatures import EXTENSIONS, FORMAT_OF_EXTENSION, REMEDIES
from convmixer.data.image_file import read_image_file
from convmixer.data.paths import Paths
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import printable
from convmixer.run_names import is_run

# Why an entry is ignored, if not for its extension. The folders that a run makes must not become a class where the data
# are in the current folder.
BESIDE = "beside the class folders"
DOTTED = "name begins with a dot"
OUTPUT = "folder of a run"

_LISTERS = 8  # threads that list folders
_NAMES_SHOWN = 6  # of a list in a message


class Files:
    """Image files with their labels, int64 [n], or -1 for each where none are given.

    `ignored`: entries beside them that are no images, counted by why: their extension, or one of the texts above.
    """

    def __init__(
        self,
        paths: Paths | Sequence[str | Path],
        labels: Sequence[int] | np.ndarray | None = None,
        classes: ClassMap | None = None,
        ignored: Mapping[str, int] | None = None,
    ) -> None:
        self.paths = paths if isinstance(paths, Paths) else Paths.of(paths)
        self.labels = np.full(len(paths), -1) if labels is None else np.asarray(labels, dtype=np.int64)
        self.classes = classes or ClassMap(())
        self.ignored = Counter(ignored or {})

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> bytes:
        return read_image_file(self.name(index))


@dataclass
class ClassFolder:
    """A class and its images. `folders`: its names on disk, several where they differ in their Unicode form only."""

    name: str
    folders: list[str] = field(default_factory=list)
    images: Paths = field(default_factory=Paths.of)


def open_folder(folder: Path, option: str, classes: ClassMap | None = None) -> Files:
    """The images of `folder`, which has one folder per class, in sorted order; files deeper down count to their class.

    `option`: what the user sets this folder with. `classes`: those of the training set, where this is another split;
    labels then are theirs, by name. Raises UserError where the folder is missing or not laid out so.
    """
    found, ignored = class_folders(folder, option)
    known, labels = labelled(ClassMap(tuple(each.name for each in found)), classes, f"{option}: {folder}")
    for each in found:
        if not len(each.images):
            raise UserError(
                f"{option}: the class folder {folder / each.folders[0]} holds no images", exit_code=RUN_FAILED
            )
    labels = np.repeat(labels, [len(each.images) for each in found])
    return Files(Paths.joined([each.images for each in found]), labels, known, ignored)


def open_files(path: str | Path, recursive: bool = False) -> Files:
    """A single image, or the images in a folder, sorted; those below it too if `recursive`."""
    path = Path(path)
    if path.is_file():
        return Files([path])
    if not path.is_dir():
        raise UserError(f"there is no image or folder {path}")
    found: list[str] = []
    ignored: Counter[str] = Counter()
    for file in files_below(path) if recursive else _files_in(path):
        if is_image(file):
            found.append(file)
        else:
            ignored[why_ignored(file)] += 1
    if not found:
        others = f"; {ignored_line(ignored, 'it')}" if ignored else ""
        below = "" if recursive else "; --recursive looks below"
        raise UserError(f"{path} holds no images ({', '.join(EXTENSIONS)}){below}{others}")
    return Files(found, ignored=ignored)


def refuse_nested(train: Path, val: Path) -> None:
    """Raise UserError where the evaluation images lie below the training folder, and would be a class of it."""
    # Not Path.resolve, which raises for links in a circle.
    train, val = Path(os.path.realpath(train)), Path(os.path.realpath(val))
    if val != train and val.is_relative_to(train):
        raise UserError(f"--val_dir: {val} lies in the training folder {train}, and would be a class of it")


def is_image(path: str) -> bool:
    """By its name alone: the extension in any case, and no dot in front (macOS writes `._x.jpg` beside x.jpg)."""
    name = os.path.basename(path)
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def why_ignored(path: str) -> str:
    """What `Files.ignored` counts an entry under."""
    name = os.path.basename(path)
    if is_run(name):
        return OUTPUT
    return DOTTED if name.startswith(".") else os.path.splitext(name)[1].lower() or "no extension"


def ignored_line(ignored: Mapping[str, int], images: str) -> str:
    """A line on what is ignored beside `images`, and how to have those read that can be."""
    counts = Counter(ignored).most_common()
    shown = ", ".join(f"{printable(why)} {count}" for why, count in counts[:_NAMES_SHOWN])
    shown += " ..." if len(counts) > _NAMES_SHOWN else ""
    formats = dict.fromkeys(FORMAT_OF_EXTENSION.get(why, "") for why, _ in counts)
    remedies = "".join(f"; {REMEDIES[name]}" for name in formats if name in REMEDIES)
    total = sum(ignored.values())
    files, are = ("file", "is") if total == 1 else ("files", "are")
    return f"{total} other {files} beside {images} {are} ignored: {shown}{remedies}"


def class_folders(folder: Path, option: str) -> tuple[list[ClassFolder], Counter[str]]:
    """The classes in `folder` with their images, sorted by name, and all that is ignored there, counted by why.

    Raises UserError where there is no folder or none of a class; `option`: what the user sets it with.
    """
    if not folder.is_dir():
        raise UserError(
            f"{option}: there is no folder {folder}\n"
            "images lie there by class, in folders, tar shards or parquet files, or a list names them (docs/data.md)"
        )
    with os.scandir(folder) as entries:
        are_classes = {entry.name: _is_folder(entry) and not entry.name.startswith(".") for entry in entries}
    ignored: Counter[str] = Counter()
    classes: dict[str, ClassFolder] = {}
    names = sorted(name for name, is_class in are_classes.items() if is_class)
    if outputs := [name for name in names if is_run(name)]:
        ignored[OUTPUT] = len(outputs)
        names = [name for name in names if name not in outputs]
    # A folder on another machine is waited for; on this one the threads cost nothing.
    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="list") as pool:
        listed = pool.map(_images_below, (folder / name for name in names))
        for name, (images, others) in zip(names, listed, strict=True):
            ignored += others
            if not len(images) and others[OUTPUT]:
                continue
            found = classes.setdefault(composed(name), ClassFolder(composed(name)))
            found.folders.append(name)
            found.images = Paths.joined([found.images, images]) if len(found.images) else images
    if not classes:
        raise UserError(f"{option}: {folder} holds no folders of classes; expected {folder}/<class>/<image>")
    if beside := sum(not is_class for is_class in are_classes.values()):
        ignored[BESIDE] = beside
    return [classes[name] for name in sorted(classes)], ignored


def _images_below(folder: Path) -> tuple[Paths, Counter[str]]:
    """The images in a class folder and below it, and what is ignored there, counted by why."""
    images: list[str] = []
    others: Counter[str] = Counter()
    for path in files_below(folder):
        if is_image(path):
            images.append(path)
        else:
            others[why_ignored(path)] += 1
    return Paths.of(images), others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _files_in(folder: Path) -> list[str]:
    """Paths of the files in `folder`, sorted."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in sorted(entries, key=lambda entry: entry.name) if not _is_folder(entry)]
    except OSError as error:
        _refuse(error)


def files_below(folder: str | Path) -> Iterator[str]:
    """Paths of the files in `folder` and below it, in sorted order; folders of runs, and those with a dot in front, are
    not entered but listed as if they were files.

    Links to folders are followed, once each.
    """
    seen = set()
    for root, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden = [name for name in folders if name.startswith(".") or is_run(name)]
        folders[:] = sorted(set(folders) - set(hidden))
        yield from (os.path.join(root, name) for name in sorted(files + hidden))


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}", exit_code=RUN_FAILED)
