"""Image files on disk: a folder with one folder a class, or a plain list of files. Nothing is ever written there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import printable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
INFER_EXTENSIONS = (".png", ".jpg", ".jpeg")

_NAMES_SHOWN = 6  # of a list in a message


class Files:
    """Image files with their labels, int64 [n], or -1 for each where none are given.

    `ignored`: how many entries beside them are no images.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        labels: Sequence[int] | None = None,
        classes: ClassMap | None = None,
        ignored: int = 0,
    ) -> None:
        # One array of bytes: a list of strings would be copied, page by page, into every loader process that reads it
        # (https://github.com/pytorch/pytorch/issues/13246).
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        self.labels = np.full(len(paths), -1) if labels is None else np.asarray(labels, dtype=np.int64)
        self.classes = classes or ClassMap(())
        self.ignored = ignored

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return os.fsdecode(bytes(self._paths[index]))

    def read(self, index: int) -> bytes:
        return Path(self.name(index)).read_bytes()


def open_folder(folder: Path, option: str, classes: ClassMap | None = None) -> Files:
    """The images of `folder`, which has one folder a class, in sorted order; files deeper down count to their class.

    `option`: what the user sets this folder with. `classes`: those of the training set, where this is another split;
    labels then are theirs, by name. Raises UserError where the folder is missing or not laid out so.
    """
    if not folder.is_dir():
        raise UserError(f"{option}: there is no folder {folder}")
    names, loose = class_folders(folder)
    if not names:
        raise UserError(f"{option}: {folder} holds no folders of classes; expected {folder}/<class>/<image>")
    if classes is None and len(names) == 1:
        raise UserError(f"{option}: {folder} has a single class, {names[0]!r}; it takes two", exit_code=RUN_FAILED)
    known = ClassMap(tuple(names)) if classes is None else classes
    labels_by_name = {name: label for label, name in enumerate(known.names)}
    unknown = [name for name in names if name not in labels_by_name]
    if unknown:
        raise UserError(
            f"{option}: {folder} has a class {unknown[0]!r} that the training classes do not have\n"
            f"the folder's: {_shortened(names)}; the training classes: {_shortened(known.names)}",
            exit_code=RUN_FAILED,
        )
    paths: list[str] = []
    labels: list[int] = []
    ignored = loose
    for name in names:
        files = list(files_below(folder / name))
        images = [path for path in files if is_image(path, EXTENSIONS)]
        if not images:
            raise UserError(f"{option}: the class folder {folder / name} holds no images", exit_code=RUN_FAILED)
        paths += images
        labels += [labels_by_name[name]] * len(images)
        ignored += len(files) - len(images)
    return Files(paths, labels, known, ignored)


def image_files(path: str | Path, recursive: bool = False) -> list[Path]:
    """A single image, or a folder's png, jpg and jpeg files, sorted; those below it too if `recursive`."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no image or folder {path}")
    if recursive:
        files = files_below(path)
    else:
        files = (entry.path for entry in sorted(os.scandir(path), key=lambda entry: entry.name) if not entry.is_dir())
    found = [Path(file) for file in files if is_image(file, INFER_EXTENSIONS)]
    if not found:
        raise UserError(f"{path} holds no png, jpg or jpeg files" + ("" if recursive else "; --recursive looks below"))
    return found


def is_image(path: str, extensions: tuple[str, ...]) -> bool:
    """By its name alone: the extension in any case, and no dot in front (macOS writes `._x.jpg` beside x.jpg)."""
    name = os.path.basename(path)
    return name.lower().endswith(extensions) and not name.startswith(".")


def _shortened(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are."""
    shown = ", ".join(printable(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} ... ({len(names)})"


def class_folders(folder: Path) -> tuple[list[str], int]:
    """Names of the folders in `folder`, sorted, and how many other entries there are."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() and not entry.name.startswith(".") for entry in entries}
    names = sorted(name for name, is_class in kinds.items() if is_class)
    return names, len(kinds) - len(names)


def files_below(folder: str | Path) -> Iterator[str]:
    """Paths of the files in `folder` and below it, in sorted order; a folder with a dot in front is not entered.

    Links to folders are followed, once each.
    """
    seen = set()
    for root, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = sorted(set(folders) - set(hidden))
        yield from (os.path.join(root, name) for name in sorted(files + hidden))


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}", exit_code=RUN_FAILED)
