"""GIF: the decoder is given the first picture alone, without the extensions in front of it."""

from __future__ import annotations

import io

from PIL import GifImagePlugin, Image

from convmixer.data.limits import BadImage, check_size

_MAX_BLOCKS = 100_000  # before the picture; of 255 bytes each, 25 MB of comments
_EXTENSION, _PICTURE, _END, _CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def open_gif(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The first picture, not yet decoded, and the orientation 1: the format has none."""
    del start
    colours = 3 << ((encoded[10] & 7) + 1) if len(encoded) > 10 and encoded[10] & 0x80 else 0
    head = 13 + colours
    at, control = _first_picture(encoded, head)
    content = encoded if at == head + len(control) else encoded[:head] + control + encoded[at:]
    image = GifImagePlugin.GifImageFile(io.BytesIO(content))
    check_size(*image.size, max_pixels)
    return image, 1


def _first_picture(encoded: bytes, at: int) -> tuple[int, bytes]:
    """Where the first picture begins, and the extension that holds its transparent colour."""
    control, blocks = b"", 0
    while at < len(encoded) and encoded[at] != _END:
        if encoded[at] == _PICTURE:
            return at, control
        begin, at = at, at + 1
        blocks += 1
        if encoded[begin] == _EXTENSION:
            at += 1
            while at < len(encoded) and encoded[at]:
                at += 1 + encoded[at]
                blocks += 1
                if blocks > _MAX_BLOCKS:
                    break
            at += 1
            if encoded[begin + 1 : begin + 2] == bytes([_CONTROL]):
                control = encoded[begin:at]
        if blocks > _MAX_BLOCKS:
            raise BadImage(f"more than {_MAX_BLOCKS} blocks before its picture")
    raise BadImage("incomplete: it ends before its first picture")
