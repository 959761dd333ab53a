"""PNG: the decoder is given the chunks that make the pixels; metadata, however large or damaged, is left out."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, PngImagePlugin

from convmixer.data.formats.orientation import orientation_of
from convmixer.data.limits import BadImage, check_size

_MAX_CHUNKS = 1 << 18  # encoders write 8 KiB or more each, so of files of 2 GiB
_MAX_METADATA = 1 << 16  # bytes of a chunk that the orientation is looked for in, or that it unpacks to
_XMP, _PROFILE = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"


def open_png(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The image, not yet decoded, and its orientation; of an animation the default image."""
    kept: list[memoryview] = []
    exif, xmp = b"", b""
    view = memoryview(encoded)
    first = at = start  # of the bytes to keep, and of the next chunk
    at += 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(encoded):
            break
        length, chunk_type = struct.unpack_from(">I4s", encoded, at)
        end = at + 12 + length
        if end > len(encoded) or chunk_type == b"IEND" or not chunk_type.isalpha():
            break  # as it is: the decoder knows what to say of it
        # A small letter in front: the image can be shown without (and libpng drops it for a wrong checksum too).
        if chunk_type[:1].islower():
            whole = length <= _MAX_METADATA and zlib.crc32(view[at + 4 : end - 4]) == _number(encoded[end - 4 : end])
            if not (whole and chunk_type == b"tRNS"):
                kept.append(view[first:at])
                first = end
            if whole:
                exif, xmp = _metadata(chunk_type, encoded[at + 8 : end - 4], exif, xmp)
        at = end
    else:
        raise BadImage(f"more than {_MAX_CHUNKS} chunks")
    content = b"".join((*kept, view[first:])) if kept or first else encoded
    image = PngImagePlugin.PngImageFile(io.BytesIO(content))
    check_size(*image.size, max_pixels)
    return image, orientation_of(exif, xmp)


def _metadata(chunk_type: bytes, content: bytes, exif: bytes, xmp: bytes) -> tuple[bytes, bytes]:
    """`exif` and `xmp` with what a chunk says."""
    if chunk_type == b"eXIf":
        return content, xmp
    if chunk_type == b"iTXt" and content.startswith(_XMP):
        return exif, content
    if chunk_type in (b"tEXt", b"zTXt") and content.startswith(_PROFILE) and not exif:
        # ImageMagick's, from before there was eXIf: three lines, then hexadecimal digits.
        text = content[len(_PROFILE) :]
        try:
            text = text if chunk_type == b"tEXt" else zlib.decompressobj().decompress(text[1:], _MAX_METADATA)
            return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])), xmp
        except (zlib.error, ValueError):
            return exif, xmp
    return exif, xmp


def _number(four_bytes: bytes) -> int:
    return int.from_bytes(four_bytes, "big")
