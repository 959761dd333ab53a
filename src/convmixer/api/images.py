"""Images from Python: paths, folders, Pillow images and arrays, one or many."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from convmixer.data.source import Source
from convmixer.data.unlabelled.located import EncodedImages, joined
from convmixer.data.unlabelled.opening import open_images as open_named
from convmixer.errors import UserError

OneImage: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray
Images: TypeAlias = OneImage | Sequence[OneImage]


def open_images(images: Images, *, recursive: bool = False) -> Source:
    """The images as a source: a path, a folder (`recursive`: what lies deeper too), an image, an array, or a list.

    Paths may be all that `convmixer infer` takes: patterns, lists, addresses, tar and Parquet files. An array is uint8
    [H, W] or [H, W, 1 or 3 or 4]; several are a list, or one array with an axis before. Raises UserError for what is
    none of these, and for an empty list or folder.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        images = [images]
    elif isinstance(images, np.ndarray):
        images = list(images) if images.ndim == 4 else [images]
    sources: list[Source] = []
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            sources.append(open_named([os.fspath(image)], recursive=recursive))
        else:
            sources.append(EncodedImages([_name(image, number)], [_in_memory(image, number)]))
    if not sources:
        raise UserError("images: there are none")
    return joined(sources)


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
