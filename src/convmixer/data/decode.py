"""Encoded bytes or pixels -> a Pillow image in mode L or RGB, by one documented rule for each kind of file.

Formats are told by content, never by the file's name: JPEG, PNG, BMP, WebP, GIF. CMYK and palettes are converted,
white lies behind transparency, of an animation the first frame is taken, and of 16 bits a value the high eight (as
Pillow does with 16-bit colour).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

try:
    import simplejpeg
except ImportError:  # optional: it finds damage that Pillow hides, see _strict_jpeg
    simplejpeg = None

# Pillow's own threshold of a "decompression bomb": a quarter of a GiB as RGB.
MAX_PIXELS = 89_478_485
_STRIP = 256  # rows

# Opened through the format's class: Image.open would look at one global pixel limit, and warn instead of refusing.
_FORMATS: tuple[tuple[int, bytes, Callable[[io.BytesIO], ImageFile.ImageFile]], ...] = (
    (0, b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (0, b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (8, b"WEBP", WebPImagePlugin.WebPImageFile),
    (0, b"BM", BmpImagePlugin.BmpImageFile),
    (0, b"GIF8", GifImagePlugin.GifImageFile),
)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Pillow warns of damaged metadata, which does not touch the pixels, without naming the file.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadImage(Exception):
    """An image that cannot be decoded; the message is a short reason, and the caller names the file."""


def decode(
    encoded: bytes | np.ndarray, *, channels: int = 3, exif: bool = False, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An image in mode RGB (`channels` 3) or L (`channels` 1).

    `encoded`: the bytes of a file, or uint8 pixels [H, W, C] with C 1 or 3. `exif`: turn the image as its EXIF
    orientation says. Raises BadImage for bytes that are no image of an allowed format, for a truncated file, and,
    before it is decoded, for one of more than `max_pixels`.
    """
    mode = "L" if channels == 1 else "RGB"
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded.squeeze(2) if encoded.shape[2] == 1 else encoded).convert(mode)
    image, orientation = _load(encoded, exif, max_pixels)
    image = _convert(image, mode)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _load(encoded: bytes, exif: bool, max_pixels: int) -> tuple[Image.Image, int]:
    """The first frame as its file has it, decoded, and its EXIF orientation (1, upright, where it has none)."""
    opener = next((cls for at, magic, cls in _FORMATS if encoded[at : at + len(magic)] == magic), None)
    if opener is None:
        raise BadImage("empty file" if not encoded else "not a JPEG, PNG, BMP, WebP or GIF image")
    try:
        image = opener(io.BytesIO(encoded))
        if image.width * image.height > max_pixels:
            raise BadImage(f"{image.width} x {image.height} pixels, more than the limit of {max_pixels}")
        frame = _strict_jpeg(encoded, image.mode) if isinstance(image, JpegImagePlugin.JpegImageFile) else None
        if frame is None:
            frame = image
            frame.load()
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise errors of a dozen classes on damaged files
        raise BadImage(str(error) or type(error).__name__) from error
    return frame, _orientation(image) if exif else 1


def _strict_jpeg(encoded: bytes, mode: str) -> Image.Image | None:
    """Bit for bit what Pillow decodes, but refused where the data ends early; None: this file is for Pillow.

    Pillow drops libjpeg's warnings, and so shows a file that was cut and closed with an end marker as half grey.
    """
    if simplejpeg is None or mode not in ("L", "RGB"):
        return None
    try:
        pixels = simplejpeg.decode_jpeg(encoded, "GRAY" if mode == "L" else "RGB", fastdct=False, fastupsample=False)
    except ValueError as error:
        # Other warnings, as of stray bytes between markers, leave the pixels whole.
        if "premature end" in str(error).lower():
            raise BadImage(str(error)) from error
        return None
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels)


def _orientation(image: Image.Image) -> int:
    try:
        orientation: int = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata of any kind: the pixels are whole all the same
        return 1
    return orientation


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own convert() clips at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = _on_white(image)
    # convert() copies even where there is nothing to convert.
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """In mode RGB; strip by strip: a small file can hold so many pixels that three images of them fill gigabytes."""
    out = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        out.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return out
