"""TIFF: the first page; its directory is checked before Pillow reads it, and 16-bit grey brought to its full range."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, TiffImagePlugin

from convmixer.data.limits import BadImage, check_size

_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a type's value
_MAX_PARTS = 1 << 16  # strips or tiles
_BYTES_PER_PIXEL = 8  # of the image and the part that is decoded into it

_WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_OFFSETS, _ROWS, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 273, 278, 322, 323, 324
_WHITE_IS_ZERO = 0


def open_tiff(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The first page, of 8 bits not yet decoded, and its orientation."""
    del start
    order = "<" if encoded[:2] == b"II" else ">"
    try:
        tags, orientation_entry = _directory(encoded, order)
    except struct.error:
        raise BadImage("incomplete: it ends within its directory") from None
    _check_parts(tags, max_pixels)
    orientation = tags.get(_ORIENTATION, 1)
    if orientation != 1 and orientation_entry:
        # Pillow turns TIFF files in any case.
        upright = struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, 1, 0)
        encoded = encoded[:orientation_entry] + upright + encoded[orientation_entry + 12 :]
    image: Image.Image = TiffImagePlugin.TiffImageFile(io.BytesIO(encoded))
    check_size(*image.size, max_pixels)
    if image.mode.startswith("I;16"):
        image.load()
        pixels = np.asarray(image).astype(np.uint16)
        pixels <<= max(16 - tags.get(_BITS, 16), 0)  # of 12 bits: Pillow leaves them in the lower part
        image = Image.fromarray(~pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels)
    return image, orientation


def _directory(encoded: bytes, order: str) -> tuple[dict[int, int], int]:
    """Tag -> its first value, where that is a whole number (of offsets: how many), and where the orientation stands.

    Raises BadImage where the values are more than the file can hold: each would be read, as often as it is named.
    """
    (at,) = struct.unpack_from(order + "I", encoded, 4)
    (count,) = struct.unpack_from(order + "H", encoded, at)
    tags, total, orientation_entry = {}, 0, 0
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, field_type, values = struct.unpack_from(order + "HHI", encoded, entry)
        size = values * _UNITS.get(field_type, 0)
        total += size if size > 4 else 0
        if tag in (_OFFSETS, _TILE_OFFSETS):
            tags[tag] = values
        elif field_type in (3, 4) and values:
            form = order + ("H" if field_type == 3 else "I")
            where = entry + 8 if size <= 4 else struct.unpack_from(order + "I", encoded, entry + 8)[0]
            (tags[tag],) = struct.unpack_from(form, encoded, where)
        if tag == _ORIENTATION:
            orientation_entry = entry
    if total > len(encoded):
        raise BadImage("a directory of more than the file holds, or incomplete")
    return tags, orientation_entry


def _check_parts(tags: dict[int, int], max_pixels: int) -> None:
    """Raise BadImage for more strips or tiles, or larger ones, than an image of `max_pixels` has."""
    width, height = tags.get(_WIDTH, 0), tags.get(_LENGTH, 0)
    check_size(width, height, max_pixels)
    if max(tags.get(_OFFSETS, 0), tags.get(_TILE_OFFSETS, 0)) > _MAX_PARTS:
        raise BadImage(f"more than {_MAX_PARTS} strips or tiles")
    if _TILE_OFFSETS in tags:
        part = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)
    else:
        part = width * min(tags.get(_ROWS, height), height)
    per_pixel = max(tags.get(_SAMPLES, 1), 1) * -(-tags.get(_BITS, 1) // 8)
    if 4 * width * height + part * per_pixel > _BYTES_PER_PIXEL * max_pixels:
        parts = f"{width} x {height} pixels in strips or tiles of {part}"
        raise BadImage(f"{parts}, more than the limit for {max_pixels} (--max_pixels)")
