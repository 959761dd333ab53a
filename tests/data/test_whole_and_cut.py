"""Files that are whole though something about them is not as it should be are read; what was cut is not."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.project import FLOWERS, PHOTOS

from convmixer.data.decode import decode_image
from convmixer.data.limits import BadImage

END = b"\xff\xd9"


def photo(width: int = 200, height: int = 150) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(encoded: bytes, **options: Any) -> np.ndarray:
    return np.asarray(decode_image(encoded, **options))


KINDS = {
    "baseline": encode(photo()),
    "progressive": encode(photo(), progressive=True),
    "restarts": encode(photo(), restart_marker_blocks=3),
    "grey": encode(photo().convert("L")),
    "cmyk": encode(photo().convert("CMYK"), progressive=True),
}


def starts_of_scans(encoded: bytes) -> list[int]:
    return [found.start() for found in re.finditer(rb"\xff\xda", encoded)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_is_read_bit_for_bit(kind: str) -> None:
    whole = KINDS[kind]
    assert whole.endswith(END)
    np.testing.assert_array_equal(pixels(whole[:-2]), pixels(whole))
    np.testing.assert_array_equal(pixels(whole[:-1]), pixels(whole))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [b"", b"\xff", END, b"\0" * 5000], ids=["open", "half", "closed", "zeros"])
@pytest.mark.parametrize("lost", [3, 40, 1000])
def test_a_jpeg_that_was_cut_is_refused_however_it_is_closed(kind: str, end: bytes, lost: int) -> None:
    """Zeros are what a download leaves that took the whole file's room before it was done."""
    with pytest.raises(BadImage):
        decode_image(KINDS[kind][: -2 - lost] + end)


def test_a_progressive_jpeg_that_was_cut_between_two_scans_is_refused() -> None:
    """No decoder notices: what is there decodes without a warning, and is blurred."""
    whole = KINDS["progressive"]
    for at in starts_of_scans(whole)[1:]:
        with pytest.raises(BadImage, match="Premature end"):
            decode_image(whole[:at])


@pytest.mark.parametrize("marker", [0, 2])
def test_a_jpeg_that_was_cut_at_a_restart_marker_is_refused(marker: int) -> None:
    whole = KINDS["restarts"]
    at = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", whole)][20] + marker
    for end in (b"", END):
        with pytest.raises(BadImage):
            decode_image(whole[:at] + end)


def test_stray_bytes_in_the_header_do_not_hide_that_the_data_ends_early() -> None:
    whole = KINDS["baseline"]
    at = whole.index(b"\xff\xdb")
    with pytest.raises(BadImage, match="premature end"):
        decode_image(whole[:at] + b"\0\1\2" + whole[at : len(whole) // 2] + END)


@pytest.mark.parametrize("stray", [b"\n", b"\r\n", b"\xef\xbb\xbf", b"\0" * 64])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_stray_bytes_before_an_image(format: str, stray: bytes) -> None:
    whole = encode(photo(), format)
    np.testing.assert_array_equal(pixels(stray + whole), pixels(whole))
    with pytest.raises(BadImage):
        decode_image(stray + whole[: len(whole) // 2])
    with pytest.raises(BadImage):
        decode_image(b"\0" * 200 + whole)


def test_photos_without_their_end_are_equal() -> None:
    paths = [path for folder in (FLOWERS, PHOTOS) for path in sorted(folder.rglob("*.[jJ]*"))]
    if len(paths) < 60:
        pytest.skip("the photos are not here")
    for path in paths[:: len(paths) // 60][:60]:
        whole = path.read_bytes()
        data = whole[: whole.rindex(END)]
        np.testing.assert_array_equal(pixels(data), pixels(whole), err_msg=str(path))
        for cut in (data[:-3], data[: len(data) // 2]):
            with pytest.raises(BadImage):
                decode_image(cut)


def chunk(kind: bytes, content: bytes, *, sum_is_right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (0 if sum_is_right else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(1_500_000))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(np.random.default_rng(0).bytes(1_500_000))),
        chunk(b"tEXt", b"Comment\0x", sum_is_right=False),
        chunk(b"pHYs", b"\0" * 9, sum_is_right=False),
        chunk(b"gAMA", b"", sum_is_right=False),
    ],
    ids=["text", "packed text", "international text", "profile", "noisy profile", "sum", "sum of pHYs", "sum and size"],
)
def test_a_png_is_read_whatever_its_metadata_is(extra: bytes) -> None:
    whole = encode(photo(), "PNG")
    for at in (33, len(whole) - 12):  # behind the header, before the end
        np.testing.assert_array_equal(pixels(whole[:at] + extra + whole[at:]), np.asarray(photo()))


def test_a_png_whose_pixels_fail_their_checksum_is_refused() -> None:
    whole = encode(photo(), "PNG")
    at = whole.index(b"IDAT") + 20
    with pytest.raises(BadImage):
        decode_image(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_orientation_in_a_png_as_imagemagick_and_xmp_tell_it() -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    hexadecimal = b"\nexif\n  32\n" + (b"Exif\0\0" + tags.tobytes().removeprefix(b"Exif\0\0")).hex().encode() + b"\n"
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'
    whole = encode(photo(), "PNG")
    turned = np.asarray(photo().transpose(Image.Transpose.ROTATE_270))
    for extra in (
        chunk(b"tEXt", b"Raw profile type exif\0" + hexadecimal),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexadecimal)),
        chunk(b"iTXt", xmp),
    ):
        np.testing.assert_array_equal(pixels(whole[:33] + extra + whole[33:], exif=True), turned)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_above_the_limit_a_jpeg_is_decoded_at_half_its_size_as_libjpeg_does(mode: str, subsampling: int) -> None:
    encoded = encode(photo(201, 151).convert(mode), subsampling=subsampling)
    image = Image.open(io.BytesIO(encoded))
    image.draft(mode, (100, 75))
    oracle = np.asarray(image.convert("RGB"))
    assert oracle.shape == (76, 101, 3)
    for most in (201 * 151 - 1, -(-201 * 151 // 4)):
        np.testing.assert_array_equal(pixels(encoded, max_pixels=most), oracle)
    assert pixels(encoded, max_pixels=201 * 151).shape == (151, 201, 3)
    with pytest.raises(BadImage, match=r"201 x 151 pixels, more than the limit of 4 times 7000 \(--max_pixels\)"):
        decode_image(encoded, max_pixels=7000)


def test_a_photo_of_108_megapixels_is_read() -> None:
    encoded = encode(Image.new("L", (12_000, 9_000), 77), quality=50)
    assert decode_image(encoded, channels=1).size == (6_000, 4_500)
    assert decode_image(encoded, channels=1, max_pixels=108_000_000).size == (12_000, 9_000)


def test_other_formats_above_the_limit_name_the_option() -> None:
    for format, most in (("PNG", 29_999), ("WEBP", 59_998), ("BMP", 29_999), ("GIF", 29_999), ("TIFF", 29_999)):
        encoded = encode(photo(), format)
        with pytest.raises(BadImage, match="--max_pixels"):
            decode_image(encoded, max_pixels=most)
        assert decode_image(encoded, max_pixels=most + 2).size == (200, 150)
    with pytest.raises(BadImage, match="29999 for a progressive JPEG"):
        decode_image(KINDS["progressive"], max_pixels=29_999)
