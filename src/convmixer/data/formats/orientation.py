"""EXIF orientation, read without reading the rest: metadata that points at itself many times must cost nothing."""

from __future__ import annotations

import re
import struct

_TAG = 0x0112
_NUMBER = {1: "B", 3: "H", 4: "I"}  # TIFF's types of whole numbers
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """1 to 8 by an EXIF block, else by XMP, as Pillow takes them; 1, upright, where neither says."""
    found = _in_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None and (match := _IN_XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _in_exif(tiff: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, field_type, values = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == _TAG and field_type in _NUMBER and values >= 1:
                value: int = struct.unpack_from(order + _NUMBER[field_type], tiff, entry + 8)[0]
                return value
    except struct.error:  # damaged: the pixels are whole all the same
        return None
    return None
