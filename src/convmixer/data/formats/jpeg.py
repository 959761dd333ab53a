"""JPEG (ITU-T T.81): the header is read here, so that no flood of markers reaches a decoder, and damage is found.

A file without an end marker is read where all of its data is there; one that was cut is refused. Above the limit of
pixels, up to four times as many are decoded at half the width and height, which libjpeg does while it decodes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from convmixer.data.formats.orientation import orientation_of
from convmixer.data.limits import BadImage, check_sides

_MAX_SEGMENTS = 10_000  # of up to 64 kB: six times the metadata of the most talkative cameras
_SCANS = 20  # of a progressive image of max_pixels; encoders write about ten
_REDUCED = 4  # times max_pixels that are decoded at half size

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))  # stuffing and markers without a length
# Comments and what applications store, but APP0 and APP14: these two tell the colour space.
_DROPPED = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_FILL = re.compile(rb"\xff+")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = b"\xff\xd9"
# Of libjpeg's warnings those of data that ends early; others, as of stray bytes, leave the pixels whole.
_CUT = re.compile(r"premature end|marker 0xd9 instead", re.IGNORECASE)

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_COLOUR_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass(frozen=True)
class _Header:
    """What stands before the first scan. `parts`: the segments that decoding needs; `stray`: bytes lie between them.

    `components`: their numbers; `several`: there may be more scans than one.
    """

    width: int
    height: int
    components: bytes
    several: bool
    scan: int
    parts: list[bytes]
    stray: bool
    exif: bytes
    xmp: bytes

    def rebuilt(self, encoded: bytes, end: bytes) -> bytes:
        """The file without what decoding does not need, closed by `end`."""
        return b"".join((b"\xff\xd8", *self.parts, memoryview(encoded)[self.scan :], end))


def load_jpeg(encoded: bytes, start: int, max_pixels: int) -> tuple[Image.Image, int]:
    """The decoded image in mode L, RGB or CMYK, and its orientation; `start`: of its first byte."""
    header = _read_header(encoded, start)
    reduced = _check_cost(encoded, header, max_pixels)
    mode = _MODES[len(header.components)]
    closed = _is_closed(encoded, header)
    if not closed and not _carries_all(encoded, header):
        raise BadImage("Premature end of JPEG file")
    whole = closed and start == 0 and not header.stray
    readable = encoded if whole else header.rebuilt(encoded, b"" if closed else _END)
    pixels = _strict(readable, header, mode, 2 if reduced else 1)
    if pixels is not None:
        return _as_image(pixels, mode), orientation_of(header.exif, header.xmp)
    # Without an end nothing else may be strange: behind what was cut a download leaves zeros, which decode to grey.
    if not closed:
        raise BadImage("Premature end of JPEG file")
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(header.rebuilt(encoded, b"")))
    if reduced:
        image.draft(image.mode, (header.width // 2, header.height // 2))
    return image, orientation_of(header.exif, header.xmp)


def decode_common_jpeg(
    encoded: bytes, start: int, max_pixels: int, channels: int, exif: bool, reduction: Callable[[int, int], int]
) -> tuple[np.ndarray, int, tuple[int, int]] | None:
    """Pixels uint8 [H, W, channels], the orientation to turn them by, and the upright width and height of the file.

    None for a file that is not of so many components, that nothing is wrong with: it is for `load_jpeg`. `reduction`:
    (upright width, height) -> 1, 2, 4 or 8, by which libjpeg divides the sides while it decodes. `exif`: as
    `decode_image` has it.
    """
    header = _read_header(encoded, start)
    if len(header.components) != channels or start or header.stray or not _is_closed(encoded, header):
        return None
    orientation = orientation_of(header.exif, header.xmp) if exif else 1
    size = (header.width, header.height) if orientation < 5 else (header.height, header.width)
    least = 2 if _check_cost(encoded, header, max_pixels) else 1
    pixels = _strict(encoded, header, _MODES[channels], max(least, reduction(*size)))
    return None if pixels is None else (pixels, orientation, size)


def size_of(encoded: bytes, start: int) -> tuple[int, int]:
    """Width and height, by the header alone."""
    header = _read_header(encoded, start)
    return header.width, header.height


def _is_closed(encoded: bytes, header: _Header) -> bool:
    return encoded.endswith(_END) or encoded.find(_END, header.scan) >= 0


def _read_header(encoded: bytes, start: int) -> _Header:
    at, stray, parts = start + 2, False, []
    frame, frame_type, exif, xmp = b"", 0, b"", b""
    for _ in range(_MAX_SEGMENTS):
        mark = encoded.find(b"\xff", at)
        fill = _FILL.match(encoded, mark) if mark >= 0 else None
        if fill is None or fill.end() + 3 > len(encoded):
            raise BadImage("incomplete: it ends within its header")
        code, behind = encoded[fill.end()], fill.end() + 1
        stray |= mark > at or code in _ALONE
        if code in _ALONE:
            at = behind
            continue
        if code == _EOI:
            raise BadImage("its end comes before any image data")
        at = behind + int.from_bytes(encoded[behind : behind + 2], "big")
        if at > len(encoded):
            raise BadImage("incomplete: it ends within its header")
        content = encoded[behind + 2 : at]
        if code == _SOS:
            break
        if code in _SOF:
            frame, frame_type = content, code
        elif code == _APP1 and not exif and content.startswith(b"Exif\0\0"):
            exif = content
        elif code == _APP1 and not xmp and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = content
        if code not in _DROPPED:
            parts.append(encoded[fill.end() - 1 : at])
    else:
        raise BadImage(f"more than {_MAX_SEGMENTS} segments before its image")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    components = frame[6::3]
    if len(components) not in _MODES or len(frame) != 6 + 3 * len(components):
        raise BadImage("no header of a frame of 1, 3 or 4 components")
    check_sides(width, height)
    several = frame_type in _PROGRESSIVE or content[:1] != bytes([len(components)])
    return _Header(width, height, components, several, fill.end() - 1, parts, stray, exif, xmp)


def _check_cost(encoded: bytes, header: _Header, max_pixels: int) -> bool:
    """Whether to decode at half size. Raises BadImage for more pixels or scans than that makes bearable."""
    pixels = header.width * header.height
    size = f"{header.width} x {header.height} pixels"
    # Of an image in several scans all coefficients are held in memory, two bytes each.
    limit = 3 * max_pixels // max(3, len(header.components)) if header.several else _REDUCED * max_pixels
    if pixels > limit:
        text = f"{limit} for a progressive JPEG" if header.several else f"{_REDUCED} times {max_pixels}"
        raise BadImage(f"{size}, more than the limit of {text} (--max_pixels)")
    bearable = _SCANS * max_pixels // pixels
    # The count is quick and never too low: what looks like a scan may lie behind the image.
    if header.several and encoded.count(b"\xff\xda", header.scan) > bearable:
        scans = sum(1 for _ in _scans(encoded, header.scan))
        if scans > bearable:
            raise BadImage(f"{scans} scans of {size}, more than the limit of {bearable} (--max_pixels)")
    return pixels > max_pixels


def _scans(encoded: bytes, at: int) -> Iterator[bytes]:
    """The header of each scan from `at` on to the end of the image."""
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(encoded, at)
        if found is None or encoded[found.start() + 1] == _EOI:
            return
        code, at = encoded[found.start() + 1], found.end()
        if code not in _ALONE:
            at += int.from_bytes(encoded[at : at + 2], "big")
        if code == _SOS:
            yield encoded[found.end() + 2 : at]
    raise BadImage(f"more than {_MAX_SEGMENTS} segments in its image")


def _carries_all(encoded: bytes, header: _Header) -> bool:
    """Whether the scans of a file that has no end carry every coefficient of every component to its last bit.

    A file of several scans can be cut between two of them, which no decoder notices.
    """
    if not header.several:
        return True
    missing = {(component, k) for component in header.components for k in range(64)}
    for scan in _scans(encoded, header.scan):
        count = scan[0] if scan else 0
        if len(scan) != 4 + 2 * count:
            return False
        first, last, bits = scan[-3:]
        if bits & 15 == 0:
            missing -= {(component, k) for component in scan[1 : 1 + 2 * count : 2] for k in range(first, last + 1)}
    return not missing


def _strict(encoded: bytes, header: _Header, mode: str, factor: int) -> np.ndarray | None:
    """Bit for bit what Pillow decodes, [H, W, C] with sides divided by `factor`; None: this file is for Pillow.

    Refused where the data ends early: Pillow drops libjpeg's warnings, and so shows a file that was cut and closed with
    an end marker as half grey.
    """
    sides = {"min_width": -(-header.width // factor), "min_height": -(-header.height // factor)} if factor > 1 else {}
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            encoded, _COLOUR_SPACES[mode], fastdct=False, fastupsample=False, **sides
        )
    except ValueError as error:
        if _CUT.search(str(error)):
            raise BadImage(str(error)) from error
        return None
    return pixels


def _as_image(pixels: np.ndarray, mode: str) -> Image.Image:
    if mode == "CMYK":
        np.subtract(255, pixels, out=pixels)  # stored inverted, as Adobe does; Pillow takes all files for such
        return Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", mode, 0, 1)
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels)
