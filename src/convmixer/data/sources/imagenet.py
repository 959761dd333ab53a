"""Any folder of images with a folder per class, as ImageNet lies on a disk."""

from __future__ import annotations

from pathlib import Path

from convmixer.data.classes import ClassMap
from convmixer.data.folders import open_folder, refuse_nested
from convmixer.data.source import Source
from convmixer.data.sources.cifar10 import FOLDER as CIFAR10_FOLDER
from convmixer.errors import UserError


def check_splits(data_url: str, train_dir: str, val_dir: str) -> None:
    refuse_nested(Path(data_url) / train_dir, Path(data_url) / val_dir)


def open_source(data_url: str | None, split_dir: str, *, train: bool, classes: ClassMap | None) -> Source:
    if data_url is None:
        raise UserError("--data_url: the folder of the images is needed for the set ImageNet")
    folder = checked_folder(data_url)
    return open_folder(folder / split_dir, "--train_dir" if train else "--val_dir", classes)


def checked_folder(data_url: str) -> Path:
    """The folder of the data. Raises UserError for one that is not there, or holds no images."""
    folder = Path(data_url).absolute()
    if not folder.is_dir():
        raise UserError(f"--data_url: there is no folder {folder}")
    if folder.name == CIFAR10_FOLDER or (folder / CIFAR10_FOLDER).is_dir():
        raise UserError(f"--data_url: {folder} holds CIFAR-10 batches, no image files; --set cifar10 reads them")
    return folder
