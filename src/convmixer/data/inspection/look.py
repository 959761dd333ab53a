"""One image file: read once, hashed, told by its content, and decoded by the rules that training decodes by."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from convmixer.data.decode import BadImage, decode

# Larger than any image that the decoder's limit on pixels lets through.
MAX_BYTES = 1 << 30

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
)
# What else turns up under an image's name, mostly from downloads that failed.
_NO_IMAGES = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer"),
    (re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*<(\?xml|svg)", re.IGNORECASE), "an XML or SVG text"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"[\t\n\r\x20-\x7e]+\Z"), "a text"),
    (re.compile(rb"\0+\Z"), "nothing but zeros"),
)
FORMAT_OF_EXTENSION = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WebP"}

# How Pillow and libjpeg say that a file ends before its image does.
_CUT = re.compile(r"truncated|premature end|incomplete|unexpected end|not enough", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Look:
    """`size`: in bytes; `width`, `height`: in pixels, 0 where it cannot be decoded.

    `format`: by content, empty for what is no known image; `digest`: SHA-256 of the file; `pixels`: a hash of the
    decoded image, empty where there is none. `fault`: why it cannot be decoded, or None; `cut`: because it ends early.
    """

    size: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    digest: bytes = b""
    pixels: bytes = b""
    fault: str | None = None
    cut: bool = False


def look_at(path: str) -> Look:
    """All that is reported of one file."""
    try:
        encoded = read_image_file(path)
    except BadImage as error:
        return Look(fault=str(error))
    kind, digest = format_of(encoded), hashlib.sha256(encoded).digest()
    try:
        image = decode(encoded)
    except BadImage as error:
        fault = str(error) if kind in FORMAT_OF_EXTENSION.values() else _what(encoded, kind)
        return Look(len(encoded), kind, digest=digest, fault=fault, cut=bool(encoded) and _ends_early(encoded, fault))
    except MemoryError:
        return Look(len(encoded), kind, digest=digest, fault="too large for the memory")
    pixels = hashlib.blake2b(b"%d %d " % image.size, digest_size=16)
    pixels.update(image.tobytes())
    return Look(len(encoded), kind, *image.size, digest, pixels.digest())


def read_image_file(path: str) -> bytes:
    """The file's bytes. Raises BadImage for what cannot be read, and for what could not be read to an end."""
    try:
        about = os.stat(path)
        # To open a pipe would wait for its other end for ever.
        if not stat.S_ISREG(about.st_mode):
            raise BadImage("not a regular file")
        if about.st_size > MAX_BYTES:
            raise BadImage(f"larger than {MAX_BYTES >> 30} GiB")
        return Path(path).read_bytes()
    except OSError as error:
        raise BadImage(error.strerror or "cannot be read") from error


def format_of(encoded: bytes) -> str:
    """Image format by content, empty for none that is known."""
    return next((name for at, magic, name in _SIGNATURES if encoded[at : at + len(magic)] == magic), "")


def _what(encoded: bytes, kind: str) -> str:
    if not encoded:
        return "empty file"
    if kind:
        return f"{kind} is not read"
    head = encoded[:512]
    return next((f"{name}, no image" for form, name in _NO_IMAGES if form.match(head)), "no image of a known format")


def _ends_early(encoded: bytes, fault: str) -> bool:
    if encoded[8:12] == b"WEBP":
        # libwebp tells no reason; the file's head tells its length behind the first eight bytes.
        return int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
    return bool(_CUT.search(fault))
