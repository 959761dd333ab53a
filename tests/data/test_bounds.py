"""Time and memory of one hostile file, under real limits: each is refused before the work, or costs next to nothing."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.project import run_python

SECONDS, GROWTH = 10.0, 1 << 30


def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((200, 150), Image.Resampling.BICUBIC)


def encode(format: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or photo()).save(file, format, **options)
    return file.getvalue()


def scans(count: int, width: int, height: int, mode: str = "RGB") -> bytes:
    """A progressive JPEG whose last scan is repeated up to `count` scans, and whose frame says this size."""
    whole = encode("JPEG", photo().convert(mode), progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", whole)]
    frame = whole.index(b"\xff\xc2") + 5
    whole = whole[:frame] + struct.pack(">HH", height, width) + whole[frame + 4 :]
    return whole[:-2] + whole[starts[-1] : -2] * (count - len(starts)) + b"\xff\xd9"


def jpeg_with(between: bytes) -> bytes:
    whole = encode("JPEG")
    return whole[:2] + between + whole[2:]


def exif_of_exif(entries: int, size: int) -> bytes:
    """A directory of which each entry is the same `size` bytes; read whole, they are `entries` times as many."""
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, entries)
    return head + b"".join(struct.pack("<HHII", 1000 + i, 1, size, 8) for i in range(entries)) + bytes(size)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    whole = encode("PNG")
    made = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return whole[:33] + b"".join(made) + whole[33:]


def png_of(width: int, height: int, depth: int, colour: int, row: int) -> bytes:
    """All zeros; `row`: bytes of one."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(1 + row)) for _ in range(height)) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    made = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def gif_with(blocks: bytes) -> bytes:
    whole = encode("GIF", photo().quantize(64))
    return whole[: 13 + 192] + blocks + whole[13 + 192 :]


def tiff_of(*entries: tuple[int, int, int, int], room: int = 1000) -> bytes:
    """A directory of (tag, type, count, value or offset) and `room` zeros."""
    made = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + made + bytes(4 + room)


GREY = ((256, 4, 1, 400), (257, 4, 1, 300), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), (278, 4, 1, 300))
STRIP = ((273, 4, 1, 300), (279, 4, 1, 120_000))


def bmp_in_run_lengths(width: int, height: int, data: bytes) -> bytes:
    palette = bytes(1024)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + head + palette + data


def webp_canvas(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + sizes
    return b"RIFF" + struct.pack("<I", len(body)) + body


READ = "read"
MANY = 10_000_000
# Name -> content and the words that refuse it, or READ.
HOSTILE: dict[str, Callable[[], tuple[bytes, str]]] = {
    "500 scans of a large image": lambda: (scans(500, 9400, 9400), "500 scans of 9400 x 9400 pixels"),
    "500 scans of a small image": lambda: (scans(500, 200, 150), READ),
    "progressive CMYK": lambda: (scans(9, 8300, 8300, "CMYK"), "for a progressive JPEG"),
    "fill bytes": lambda: (b"\xff\xd8" + b"\xff" * (3 * MANY), "incomplete"),
    "fill bytes before an image": lambda: (jpeg_with(b"\xff" * MANY), READ),
    "stuffed zeros": lambda: (b"\xff\xd8" + b"\xff\0" * (MANY // 2), "segments"),
    "EXIF segments": lambda: (jpeg_with(b"\xff\xe1\0\x0aExif\0\0ab" * (MANY // 12)), "segments"),
    "comments between scans": lambda: (scans(10, 200, 150)[:-2] + b"\xff\xfe\0\2" * (MANY // 4), "segments"),
    "EXIF of EXIF": lambda: (jpeg_with(b"\xff\xe1\xff\xff" + exif_of_exif(4000, 17519)), READ),
    "PNG: EXIF of EXIF": lambda: (png_with((b"eXIf", exif_of_exif(60_000, MANY)[6:])), READ),
    "PNG: text": lambda: (png_with((b"tEXt", b"a\0" + b"x" * MANY)), READ),
    "PNG: packed text": lambda: (png_with((b"zTXt", b"a\0\0" + zlib.compress(bytes(10 * MANY), 1))), READ),
    "PNG: packed EXIF": lambda: (
        png_with((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2 * MANY), 9))),
        READ,
    ),
    "PNG: packed profile": lambda: (png_with((b"iCCP", b"a\0\0" + zlib.compress(bytes(10 * MANY), 1))), READ),
    "PNG: chunks": lambda: (png_with(*[(b"tEXt", b"")] * 300_000), "chunks"),
    "PNG: a line": lambda: (png_of(89_478_485, 1, 8, 0, 89_478_485), "a side of more than 1000000"),
    "PNG: lines": lambda: (png_of(1_000_000, 40, 8, 2, 3_000_000), READ),
    "GIF: comments": lambda: (gif_with(b"!\xfe\1a\0" * 2_000_000), "blocks"),
    "GIF: a comment": lambda: (gif_with(b"!\xfe" + b"\1a" * (MANY // 2) + b"\0"), "blocks"),
    "GIF: zeros": lambda: (gif_with(bytes(MANY)), "blocks"),
    "TIFF: tags of the same bytes": lambda: (
        tiff_of(*GREY, *STRIP, *((1000 + i, 1, MANY, 8) for i in range(60_000)), room=MANY),
        "more than the file holds",
    ),
    "TIFF: strips": lambda: (tiff_of(*GREY, (273, 4, MANY // 4, 8), (279, 4, 1, 400), room=MANY), "strips or tiles"),
    "TIFF: a giant tile": lambda: (
        tiff_of((256, 4, 1, 9), (257, 4, 1, 9), *GREY[2:5], (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 8)),
        "strips or tiles of 1600000000",
    ),
    "TIFF: a giant strip": lambda: (
        tiff_of((256, 4, 1, 40_000), (257, 4, 1, 40_000), *GREY[2:], *STRIP),
        "more than the limit",
    ),
    "BMP: run lengths": lambda: (bmp_in_run_lengths(4000, 4000, b"\1\5" * (MANY // 2)), "run lengths"),
    "BMP: ends of lines": lambda: (bmp_in_run_lengths(999_000, 16, b"\1\0\0\0" * 16), "run lengths"),
    "WebP: a canvas": lambda: (webp_canvas(16_384, 16_383), "limit of 44739242 for WebP"),
    "zeros": lambda: (encode("JPEG")[:700] + bytes(3 * MANY), "Premature end"),
}
PROGRAM = """
import json, os, resource, sys, time
from pathlib import Path
from convmixer.data.folders import Files
from convmixer.data.inspection.probe import probe
from convmixer.data.decode import decode_image
from convmixer.data.limits import BadImage
statm = Path("/proc/self/statm")
limit = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
answers = []
for path in sys.argv[2:]:
    start = time.perf_counter()
    try:
        decode_image(Path(path).read_bytes(), exif=True)
        answer = "read"
    except BadImage as error:
        answer = str(error)
    seconds = time.perf_counter() - start
    answers.append([answer, probe(Files([path]), 0).error, seconds])
print(json.dumps(answers))
"""


def test_no_file_costs_ten_seconds_or_a_gigabyte(tmp_path: Path) -> None:
    paths, expected = [], []
    for number, make in enumerate(HOSTILE.values()):
        content, words = make()
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(content)
        expected.append(words)
    done = run_python("-c", PROGRAM, GROWTH, *paths, MALLOC_ARENA_MAX="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for name, words, (answer, fault, seconds) in zip(HOSTILE, expected, json.loads(done.stdout), strict=True):
        assert words in answer, name
        assert fault is None if words == READ else words in fault, name
        assert seconds < SECONDS, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: encode("PNG", Image.new("RGBA", (9400, 9400)), compress_level=1),
        lambda: png_of(9400, 9400, 16, 6, 8 * 9400),
        lambda: png_of(9400, 9400, 16, 0, 2 * 9400),
        lambda: encode("JPEG", Image.new("RGB", (9400, 9400)), progressive=True, subsampling=0),
        lambda: encode("JPEG", Image.new("RGB", (18_900, 18_900))),
        lambda: encode("WEBP", Image.new("RGBA", (6600, 6600)), lossless=True, method=0),
        lambda: encode("TIFF", Image.new("RGBA", (9400, 9400)), compression="tiff_lzw"),
        lambda: encode("GIF", Image.new("P", (9400, 9400))),
    ],
    ids=["png", "16-bit png", "16-bit grey png", "progressive", "four times", "webp", "tiff", "gif"],
)
def test_the_largest_images_that_are_read_stay_below_a_gigabyte(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path = tmp_path / "x"
    path.write_bytes(make())
    done = run_python("-c", PROGRAM, GROWTH, path, MALLOC_ARENA_MAX="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    ((answer, fault, seconds),) = json.loads(done.stdout)
    assert (answer, fault) == (READ, None)
    assert seconds < 2 * SECONDS  # a busy machine; alone it takes a few
