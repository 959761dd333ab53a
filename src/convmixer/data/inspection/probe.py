"""One image file: read once, hashed, identified by its content, and decoded by the rules that training decodes by."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image

from convmixer.data.decode import load_frame, to_mode
from convmixer.data.formats.signatures import detect_format
from convmixer.data.limits import MAX_PIXELS, BadImage, strips
from convmixer.data.reader import only_this_image
from convmixer.data.source import Source

# Levels of 0 to 255 that nothing can be seen by: values of 12 bits in 16 leave as many.
_BLANK = 16

# How Pillow and libjpeg say that a file ends before its image does.
_TRUNCATED = re.compile(r"truncated|premature end|incomplete|unexpected end|not enough", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileReport:
    """`size`: in bytes; `width`, `height`: in pixels, 0 where it cannot be decoded.

    `format`: by content, empty for what is no known image; `digest`: SHA-256 of the file; `pixels`: a hash of the
    decoded image, empty where there is none. `error`: why it cannot be decoded, or None; `truncated`: because it ends
    early. `blank`: what makes it an image of one colour, or None.
    """

    size: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    digest: bytes = b""
    pixels: bytes = b""
    error: str | None = None
    truncated: bool = False
    blank: str | None = None


def probe(source: Source, index: int, max_pixels: int = MAX_PIXELS) -> FileReport:
    """All that is reported of one image file."""
    encoded = b""
    try:
        with only_this_image():
            encoded = bytes(source.read(index))
            frame, _ = load_frame(encoded, max_pixels)
            image = to_mode(frame, "RGB")
            pixels = hashlib.blake2b(b"%d %d " % image.size, digest_size=16)
            for box in strips(*image.size):
                pixels.update(image.crop(box).tobytes())
    except BadImage as error:
        truncated = _ends_early(encoded, str(error))
        return FileReport(len(encoded), detect_format(encoded)[0], error=str(error), truncated=truncated)
    digest = hashlib.sha256(encoded).digest()
    name, _ = detect_format(encoded)
    return FileReport(len(encoded), name, *image.size, digest, pixels.digest(), blank=_why_blank(frame, image))


def _why_blank(frame: Image.Image, image: Image.Image) -> str | None:
    """What makes it an image of one colour, as `frame`, what its file holds, shows; None for an image of something."""
    ranges: Any = image.getextrema()
    if any(high - low >= _BLANK for low, high in ranges):
        return None
    if "A" in frame.getbands() and frame.getchannel("A").getextrema() == (0, 0):
        return "transparent everywhere (alpha 0)"
    if frame.mode.startswith("I"):
        max_level: Any = frame.getextrema()[1]
        return f"16 bits per value, of which {int(max_level).bit_length()} are used"
    if all(low == high for low, high in ranges):
        return "one colour, " + " ".join(str(low) for low, _ in ranges)
    return f"levels {min(low for low, _ in ranges)} to {max(high for _, high in ranges)} of 0 to 255"


def _ends_early(encoded: bytes, error: str) -> bool:
    if not encoded:
        return False
    if encoded[8:12] == b"WEBP":
        # libwebp tells no reason; the file's head has its length behind the first eight bytes.
        return int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
    return bool(_TRUNCATED.search(error))
