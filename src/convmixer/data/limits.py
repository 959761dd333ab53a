"""What one image may cost, and the error that stands for an image that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

# Pillow's own threshold of a "decompression bomb": a quarter of a GiB as RGB.
MAX_PIXELS = 89_478_485
# A longer side makes a resize to a few pixels take gigabytes for its filter alone.
MAX_SIDE = 1_000_000
# Larger than a file of MAX_PIXELS without compression (four bytes each); two copies of it stay below a gigabyte.
MAX_BYTES = 400 * 2**20
# What is done to an image strip by strip holds so many pixels at once.
STRIP_PIXELS = 1 << 20


class BadImage(Exception):
    """An image that cannot be decoded; the message is a short reason, and the caller names the file."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise BadImage for an image of more than `max_pixels`, or with a side of more than MAX_SIDE."""
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} pixels, more than the limit of {max_pixels} (--max_pixels)")
    check_sides(width, height)


def check_sides(width: int, height: int) -> None:
    """Raise BadImage for an image with a side of more than MAX_SIDE, or of none."""
    if max(width, height) > MAX_SIDE:
        raise BadImage(f"{width} x {height} pixels, a side of more than {MAX_SIDE}")
    if min(width, height) < 1:
        raise BadImage(f"{width} x {height} pixels")


def strips(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of rows that make up an image, of about STRIP_PIXELS each."""
    rows = max(STRIP_PIXELS // width, 1)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)
