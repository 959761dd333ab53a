"""One image of a source as it goes into a shard."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from convmixer.data.decode import load_frame, to_mode
from convmixer.data.formats.signatures import READ, detect_format
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.reader import only_this_image
from convmixer.data.source import Source

_GREY = ("1", "L", "I", "I;16", "I;16L", "I;16B")


@dataclass(frozen=True)
class ImageSize:
    """`short_side`: pixels that the shorter side of a larger image is reduced to, None: no image is changed; `quality`:
    of the JPEG files that those become."""

    short_side: int | None = None
    quality: int = 92
    max_pixels: int = MAX_PIXELS


def packed_image(source: Source, index: int, size: ImageSize) -> tuple[str, bytes]:
    """(extension, bytes of the file). Raises BadImage for an image that training could not decode.

    A file that is not reduced keeps its bytes. One that is reduced keeps its EXIF orientation as a tag and its pixels
    as they lie, so that the option `exif` means the same for it as before; other metadata is left out. Pixels of a set
    without files become PNG.
    """
    with only_this_image():
        encoded = source.read(index)
        if isinstance(encoded, np.ndarray):
            return ".png", _png(encoded)
        frame, orientation = load_frame(encoded, size.max_pixels)
        if size.short_side is None or min(frame.size) <= size.short_side:
            return READ[detect_format(encoded)[0]][0], encoded
        is_grey = frame.mode in _GREY and not frame.has_transparency_data
        image = to_mode(frame, "L" if is_grey else "RGB")
        factor = size.short_side / min(image.size)
        width, height = (max(round(side * factor), size.short_side) for side in image.size)
        return ".jpg", _jpeg(image.resize((width, height), Image.Resampling.LANCZOS), orientation, size.quality)


def _jpeg(image: Image.Image, orientation: int, quality: int) -> bytes:
    file = io.BytesIO()
    if orientation == 1:
        image.save(file, "JPEG", quality=quality)
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        image.save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
