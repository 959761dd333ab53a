"""The one list of formats, for every command: by which names files are taken up, and how content is recognised."""

from __future__ import annotations

import re
from importlib.util import find_spec

from PIL import features

# Format -> extensions of its files. What is no image by its name is ignored and counted.
_ALL = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WebP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIC": (".heic", ".heif"),
}
HAS_HEIC = find_spec("pi_heif") is not None
_ABSENT = {name for name, is_available in (("AVIF", features.check("avif")), ("HEIC", HAS_HEIC)) if not is_available}

READ = {name: extensions for name, extensions in _ALL.items() if name not in _ABSENT}
EXTENSIONS = tuple(extension for extensions in READ.values() for extension in extensions)
FORMAT_OF_EXTENSION = {extension: name for name, extensions in _ALL.items() for extension in extensions}

# How to have a format read that is not; a sentence's end.
REMEDIES = {
    "HEIC": "HEIC takes pip install 'convmixer[heif]'",
    "AVIF": "AVIF takes pillow 11.3 or later",
}

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
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
HEAD = 512  # bytes that tell what a file is
_STRAY = 64  # bytes in front of an image that a download or an editor may have put there


def detect_format(encoded: bytes) -> tuple[str, int]:
    """Format by content, and where its first byte is: 0, or behind a few stray bytes for JPEG and PNG.

    The format is empty for none that is known.
    """
    for at, magic, name in _SIGNATURES:
        if encoded[at : at + len(magic)] == magic:
            return name, 0
    if encoded[4:8] == b"ftyp":
        size = min(int.from_bytes(encoded[:4], "big"), HEAD)
        brands = {encoded[at : at + 4] for at in range(8, size, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF", 0
        if brands & _HEIC_BRANDS:
            return "HEIC", 0
    for _, magic, name in _SIGNATURES[:2]:
        at = encoded.find(magic, 0, _STRAY + len(magic))
        if at > 0:
            return name, at
    return "", 0


def why_not_read(encoded: bytes) -> str:
    """Why this is no image that is read, by its first HEAD bytes."""
    if not encoded:
        return "empty file"
    name, _ = detect_format(encoded)
    if name:
        return f"{name} is not read" + (f"; {REMEDIES[name]}" if name in REMEDIES else "")
    head = encoded[:HEAD]
    return next((f"{name}, no image" for form, name in _NO_IMAGES if form.match(head)), "no image of a known format")
