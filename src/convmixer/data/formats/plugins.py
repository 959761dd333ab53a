"""BMP, WebP, AVIF and HEIC: each as Pillow's plugin reads it, once its size is known to be bearable."""

from __future__ import annotations

import io

from PIL import BmpImagePlugin, Image, WebPImagePlugin

from convmixer.data.formats.orientation import orientation_of
from convmixer.data.formats.signatures import HAS_HEIC, READ, why_not_read
from convmixer.data.limits import BadImage, check_size

# Their decoders hold two to four images at once.
_COSTLY = 2
# Pillow's reader of run lengths is a loop in Python over bytes and pixels.
_RUN_LENGTHS = 1 << 22


def open_bmp(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The image, not yet decoded; the format has no orientation."""
    del start
    image = BmpImagePlugin.BmpImageFile(io.BytesIO(encoded))
    check_size(*image.size, max_pixels)
    if image.tile[0][0] == "bmp_rle" and len(encoded) + image.width * image.height > _RUN_LENGTHS:
        raise BadImage(f"{image.width} x {image.height} pixels in run lengths, more than is read; save it without")
    return image, 1


def open_webp(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The first frame, not yet decoded, and its orientation."""
    del start
    _check_costly("WebP", _webp_size(encoded), max_pixels)
    return _with_orientation(WebPImagePlugin.WebPImageFile(io.BytesIO(encoded)))


def open_avif(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The first frame, not yet decoded, and its orientation."""
    del start
    if "AVIF" not in READ:
        raise BadImage(why_not_read(encoded))
    from PIL import AvifImagePlugin  # Pillow has it from 11.3 on

    image = AvifImagePlugin.AvifImageFile(io.BytesIO(encoded))
    _check_costly("AVIF", image.size, max_pixels)
    return _with_orientation(image)


def open_heic(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The primary image, not yet decoded; its container's turn is always applied, so that it is upright."""
    del start
    if not HAS_HEIC:
        raise BadImage(why_not_read(encoded))
    from pi_heif import HeifImageFile

    image = HeifImageFile(io.BytesIO(encoded))
    _check_costly("HEIC", image.size, max_pixels)
    return image, 1


def _check_costly(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    limit = max_pixels // _COSTLY
    if width * height > limit:
        raise BadImage(f"{width} x {height} pixels, more than the limit of {limit} for {name} (half of --max_pixels)")
    check_size(width, height, max_pixels)


def _webp_size(encoded: bytes) -> tuple[int, int]:
    """Width and height; read before libwebp, which takes memory for the whole canvas when it opens a file."""
    fourcc = encoded[12:16]
    if len(encoded) < 30 and fourcc != b"VP8L":
        raise BadImage("incomplete WebP header")
    if fourcc == b"VP8X":
        return 1 + int.from_bytes(encoded[24:27], "little"), 1 + int.from_bytes(encoded[27:30], "little")
    if fourcc == b"VP8L":
        bits = int.from_bytes(encoded[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(encoded[26:28], "little") & 0x3FFF, int.from_bytes(encoded[28:30], "little") & 0x3FFF


def _with_orientation(image: Image.Image) -> tuple[Image.Image, int]:
    exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
    return image, orientation_of(exif, xmp if isinstance(xmp, bytes) else b"")
