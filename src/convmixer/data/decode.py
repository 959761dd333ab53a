"""Encoded bytes or pixels -> a Pillow image in mode L or RGB, by one documented rule for each kind of file.

Formats are detected by content, never by the file's name. CMYK and palettes are converted, white lies behind
transparency, of an animation or of several pages the first is taken, and of 16 bits per value the high eight (as Pillow
does with 16-bit colour).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from convmixer.data.formats.gif import open_gif
from convmixer.data.formats.jpeg import decode_common_jpeg, load_jpeg, size_of
from convmixer.data.formats.plugins import open_avif, open_bmp, open_heic, open_webp
from convmixer.data.formats.png import open_png
from convmixer.data.formats.signatures import detect_format, why_not_read
from convmixer.data.formats.tiff import open_tiff
from convmixer.data.limits import MAX_PIXELS, BadImage, strips

# Each is opened through its format's class: Image.open would look at one global pixel limit, and warn instead of
# refusing. They take the bytes, where in them the image begins, and the limit of pixels.
OPENERS: dict[str, Callable[[bytes, int, int], tuple[Image.Image, int]]] = {
    "JPEG": load_jpeg,
    "PNG": open_png,
    "WebP": open_webp,
    "BMP": open_bmp,
    "GIF": open_gif,
    "TIFF": open_tiff,
    "AVIF": open_avif,
    "HEIC": open_heic,
}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}

# Pillow warns of damaged metadata, which does not touch the pixels, without naming the file.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(
    encoded: bytes | np.ndarray, *, channels: int = 3, exif: bool = False, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An image in mode RGB (`channels` 3) or L (`channels` 1).

    `encoded`: the bytes of a file, or uint8 pixels [H, W, C] with C 1 or 3. `exif`: turn the image as its EXIF
    orientation says. Raises BadImage for bytes that are no image of an allowed format, for a truncated file, and,
    before it is decoded, for one of more than `max_pixels` (JPEG files of up to four times as many come at half their
    width and height; WebP, AVIF and HEIC may have half as many).
    """
    mode = "L" if channels == 1 else "RGB"
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded.squeeze(2) if encoded.shape[2] == 1 else encoded).convert(mode)
    frame, orientation = load_frame(encoded, max_pixels)
    image = to_mode(frame, mode)
    return image.transpose(_UPRIGHT[orientation]) if exif and orientation in _UPRIGHT else image


def decode_pixels(
    encoded: bytes | np.ndarray,
    reduction: Callable[[int, int], int],
    *,
    channels: int = 3,
    exif: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, tuple[int, int]]:
    """What `decode_image` gives as uint8 [H, W, channels], and its width and height; quicker for most JPEG files.

    Those come with their sides divided by `reduction(width, height)`, 1, 2, 4 or 8, the fraction rounded up; the width
    and height that are returned are the file's all the same.
    """
    if not isinstance(encoded, np.ndarray):
        name, start = detect_format(encoded)
        if name == "JPEG":
            with _damage_is_bad_image():
                found = decode_common_jpeg(encoded, start, max_pixels, channels, exif, reduction)
            if found is not None:
                pixels, orientation, size = found
                return _TURNED[orientation](pixels) if orientation in _TURNED else pixels, size
    elif encoded.shape[2] == channels:
        return encoded, encoded.shape[1::-1]
    image = decode_image(encoded, channels=channels, exif=exif, max_pixels=max_pixels)
    pixels = np.asarray(image)
    return pixels[..., None] if channels == 1 else pixels, image.size


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG file as it lies, by its header; None for another file. Raises BadImage for damage."""
    name, start = detect_format(encoded)
    if name != "JPEG":
        return None
    with _damage_is_bad_image():
        return size_of(encoded, start)


def load_frame(encoded: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, int]:
    """The first frame as its file has it, decoded, and its EXIF orientation (1, upright, where it has none)."""
    name, start = detect_format(encoded)
    if name not in OPENERS:
        raise BadImage(why_not_read(encoded))
    with _damage_is_bad_image():
        image, orientation = OPENERS[name](encoded, start, max_pixels)
        image.load()
    return image, orientation


@contextmanager
def _damage_is_bad_image() -> Iterator[None]:
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise errors of a dozen classes on damaged files
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from error


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """A frame in mode L or RGB. Raises BadImage for values that have no scale."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise BadImage("values of 32 bits are not read: their scale is not known")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own convert() clips at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = _on_white(image)
    try:
        # convert() copies even where there is nothing to convert.
        return image if image.mode == mode else image.convert(mode)
    except ValueError as error:
        raise BadImage(str(error)) from error


def _on_white(image: Image.Image) -> Image.Image:
    """In mode RGB; strip by strip: a small file can hold so many pixels that three images of them fill gigabytes."""
    out = Image.new("RGB", image.size)
    for box in strips(*image.size):
        strip = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        out.paste(Image.alpha_composite(white, strip).convert("RGB"), box[:2])
    return out
