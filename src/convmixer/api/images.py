"""Images from Python: paths, folders, Pillow images and arrays, one or many."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from convmixer.data.classes import ClassMap
from convmixer.data.folders import open_files
from convmixer.data.image_file import read_image_file
from convmixer.data.source import Source
from convmixer.errors import UserError

OneImage: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray
Images: TypeAlias = OneImage | Sequence[OneImage]


class ImageList:
    """A source of files and of images in memory, without labels. `ignored`: files of folders that are no images."""

    def __init__(self, entries: list[str | bytes | np.ndarray], names: list[str], ignored: dict[str, int]) -> None:
        self._entries, self._names, self.ignored = entries, names, ignored
        self.labels, self.classes = np.full(len(entries), -1), ClassMap(())

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> bytes | np.ndarray:
        entry = self._entries[index]
        return read_image_file(entry) if isinstance(entry, str) else entry


def open_images(images: Images, *, recursive: bool = False) -> Source:
    """The images as a source: a path, a folder (`recursive`: what lies deeper too), an image, an array, or a list.

    An array is uint8 [H, W] or [H, W, 1 or 3 or 4]; several are a list, or one array with an axis before. Raises
    UserError for what is none of these, and for an empty list or folder.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    elif isinstance(images, np.ndarray):
        images = list(images) if images.ndim == 4 else [images]
    entries: list[str | bytes | np.ndarray] = []
    names: list[str] = []
    ignored: dict[str, int] = {}
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            files = open_files(os.fspath(image), recursive=recursive)
            found = [files.name(index) for index in range(len(files))]
            entries += found
            names += found
            ignored |= {why: ignored.get(why, 0) + count for why, count in files.ignored.items()}
        else:
            entries.append(_in_memory(image, number))
            names.append(_name(image, number))
    if not entries:
        raise UserError("images: there are none")
    return ImageList(entries, names, ignored)


def _name(image: Any, number: int) -> str:
    path = getattr(image, "filename", "")
    return str(Path(path)) if path else f"image {number}"


def _in_memory(image: Any, number: int) -> bytes:
    """As a PNG file: what holds for files of any mode and orientation holds for it."""
    if isinstance(image, np.ndarray):
        image = _from_array(image, number)
    if not isinstance(image, Image.Image):
        raise UserError(f"images: number {number} is a {type(image).__name__}, no path, image or array")
    exif, encoded = image.getexif(), io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    image.save(encoded, "PNG", compress_level=0, **({"exif": exif} if exif else {}))
    return encoded.getvalue()


def _from_array(array: np.ndarray, number: int) -> Image.Image:
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise UserError(
            f"images: number {number} is an array {array.dtype} {list(array.shape)}; uint8 pixels [height, width] or "
            "[height, width, 1, 3 or 4 channels] are taken"
        )
    return Image.fromarray(array.reshape(array.shape[:2]) if channels == 1 else array)
