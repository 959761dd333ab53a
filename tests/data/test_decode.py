from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.project import IMAGES

from convmixer.data.decode import decode_image, decode_pixels
from convmixer.data.formats.signatures import READ
from convmixer.data.limits import BadImage


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photo(width: int = 61, height: int = 47) -> Image.Image:
    """Smooth enough that lossy formats keep it, and not the same in any orientation."""
    return Image.fromarray(noise(6, 7, 3)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP", "GIF", "TIFF"])
def test_lossless_files_give_their_pixels(format: str) -> None:
    # 200 colours, so that a GIF's palette holds them all.
    pixels = noise(200, 3)[np.arange(40 * 50).reshape(40, 50) % 200]
    image = Image.fromarray(pixels)
    encoded = encode(
        image.quantize(256) if format == "GIF" else image, format, **{"lossless": True} if format == "WEBP" else {}
    )
    decoded = decode_image(encoded)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), pixels)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_what_pillow_decodes(subsampling: str, progressive: bool) -> None:
    encoded = encode(photo(), "JPEG", subsampling=subsampling, progressive=progressive)
    np.testing.assert_array_equal(np.asarray(decode_image(encoded)), np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(("channels", "expected"), [(1, "L"), (3, "RGB")])
def test_jpeg_colour_spaces_are_converted_as_pillow_does(mode: str, channels: int, expected: str) -> None:
    encoded = encode(photo().convert(mode), "JPEG", **{"keep_rgb": True} if mode == "RGB" else {})
    oracle = Image.open(io.BytesIO(encoded)).convert(expected)
    decoded = decode_image(encoded, channels=channels)
    assert decoded.mode == expected
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(oracle))


@pytest.mark.parametrize("folder", ["flowers5/val", "imagenet-samples"])
def test_photos_are_what_pillow_decodes(folder: str) -> None:
    if not (IMAGES / folder).is_dir():
        pytest.skip(f"needs shared/data/{folder}")
    for path in sorted((IMAGES / folder).rglob("*.[jJ]*"))[::8]:
        with Image.open(path) as image:
            oracle = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(decode_image(path.read_bytes())), oracle, err_msg=str(path))


def test_pixels_pass_through() -> None:
    grey, colour = noise(5, 7, 1), noise(5, 7, 3)
    np.testing.assert_array_equal(np.asarray(decode_image(grey, channels=1)), grey[..., 0])
    np.testing.assert_array_equal(np.asarray(decode_image(colour)), colour)
    np.testing.assert_array_equal(np.asarray(decode_image(grey)), np.repeat(grey, 3, axis=2))


def test_16_bit_grey_is_scaled() -> None:
    wide = np.array([[0, 255, 256, 257], [0x7FFF, 0x8000, 0xFF00, 0xFFFF]], dtype=np.uint16)
    encoded = encode(Image.fromarray(wide), "PNG")
    np.testing.assert_array_equal(np.asarray(decode_image(encoded, channels=1)), [[0, 0, 1, 1], [127, 128, 255, 255]])
    assert decode_image(encoded).mode == "RGB"


def test_white_lies_behind_transparency() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    # 51 / 255 is a fifth: black over white is 4/5 of 255.
    expected = [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(np.asarray(decode_image(encode(Image.fromarray(rgba), "PNG"))), expected)


def test_grey_and_palette_transparency() -> None:
    la = Image.fromarray(np.array([[[40, 255], [40, 0]]], dtype=np.uint8))
    np.testing.assert_array_equal(np.asarray(decode_image(encode(la, "PNG"), channels=1)), [[40, 255]])
    palette = Image.new("P", (2, 1))
    palette.putdata([0, 1])
    palette.putpalette([1, 2, 3, 4, 5, 6])
    encoded = encode(palette, "PNG", transparency=1)
    np.testing.assert_array_equal(np.asarray(decode_image(encoded)), [[[1, 2, 3], [255, 255, 255]]])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    encoded = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(encoded)), "n_frames", None) == 3
    assert decode_image(encoded).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", *(["AVIF"] if "AVIF" in READ else [])])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    encoded = encode(photo(), format, exif=tags)
    stored = Image.open(io.BytesIO(encoded)).convert("RGB")
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode_image(encoded, exif=True)), np.asarray(upright))
    np.testing.assert_array_equal(np.asarray(decode_image(encoded, exif=False)), np.asarray(stored))


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_those_of_the_image(orientation: int, format: str, channels: int, exif: bool) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    for mode in ("L", "RGB"):
        encoded = encode(photo().convert(mode), format, exif=tags)
        image = decode_image(encoded, channels=channels, exif=exif)
        asked: list[tuple[int, int]] = []
        pixels, size = decode_pixels(
            encoded, lambda *size, asked=asked: asked.append(size) or 1, channels=channels, exif=exif
        )
        np.testing.assert_array_equal(pixels, np.asarray(image).reshape(image.height, image.width, channels))
        assert size == image.size
        assert asked in ([], [image.size])  # the size that is asked about is that of the upright image


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize(("factor", "sides"), [(1, (403, 301)), (2, (202, 151)), (4, (101, 76)), (8, (51, 38))])
@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_comes_smaller_as_libjpeg_does(
    factor: int, sides: tuple[int, int], progressive: bool, exif: bool
) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6  # lies on its side
    encoded = encode(photo(403, 301), "JPEG", progressive=progressive, exif=tags)
    oracle = Image.open(io.BytesIO(encoded))
    oracle.draft("RGB", (403 // factor, 301 // factor))
    upright = oracle.rotate(-90, expand=True) if exif else oracle
    pixels, size = decode_pixels(encoded, lambda *_: factor, exif=exif)
    assert size == ((301, 403) if exif else (403, 301))
    assert pixels.shape == ((*sides, 3) if exif else (*sides[::-1], 3))
    np.testing.assert_array_equal(pixels, np.asarray(upright))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_jpeg_that_was_cut_is_refused_at_any_size(share: float) -> None:
    encoded = encode(Image.fromarray(noise(300, 400, 3)), "JPEG")
    for end in (b"", b"\xff\xd9"):
        with pytest.raises(BadImage):
            decode_pixels(encoded[: int(share * len(encoded))] + end, lambda *_: 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03"])
def test_damaged_exif_leaves_the_image_as_it_is(exif: bytes) -> None:
    encoded = encode(photo(), "JPEG", exif=exif)
    np.testing.assert_array_equal(
        np.asarray(decode_image(encoded, exif=True)), np.asarray(decode_image(encode(photo(), "JPEG")))
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", *(["AVIF"] if "AVIF" in READ else [])])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(format: str, share: float) -> None:
    encoded = encode(photo(200, 150), format)
    decode_image(encoded)
    with pytest.raises(BadImage):
        decode_image(encoded[: int(share * len(encoded))])


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_cut_and_closed_with_an_end_marker_is_found(progressive: bool) -> None:
    encoded = encode(photo(200, 150), "JPEG", progressive=progressive)
    with pytest.raises(BadImage, match="premature end"):
        decode_image(encoded[: len(encoded) // 2] + b"\xff\xd9")


def test_jpeg_with_stray_bytes_is_read() -> None:
    encoded = encode(photo(), "JPEG")
    at = encoded.index(b"\xff\xdb")  # libjpeg warns of stray bytes before a marker, and goes on
    decoded = decode_image(encoded[:at] + b"\x00\x01\x02" + encoded[at:] + b"after the end")
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(decode_image(encoded)))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff\xd8\xff",
        b"plain text in a .jpg",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        encode(Image.new("RGB", (9, 9)), "PPM"),
        encode(Image.new("RGB", (9, 9)), "ICO"),
    ],
    ids=["empty", "marker only", "text", "eps", "ppm", "ico"],
)
def test_other_content_is_refused(encoded: bytes) -> None:
    with pytest.raises(BadImage):
        decode_image(encoded)


def png_of_size(width: int, height: int) -> bytes:
    """A whole PNG of 1-bit grey zeros: 8 kB a gigapixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pixel_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png_of_size(20_000, 20_000)
    assert len(bomb) < 100_000
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(BadImage, match="20000 x 20000 pixels"):
        decode_image(bomb)


def test_the_cap_is_an_option() -> None:
    encoded = png_of_size(10_000, 10_000)  # past the size of which Pillow warns
    with pytest.raises(BadImage, match="limit"):
        decode_image(encoded, channels=1)
    assert decode_image(encoded, channels=1, max_pixels=10**8).size == (10_000, 10_000)
    with pytest.raises(BadImage, match=r"limit of 99 \(--max_pixels\)"):
        decode_image(png_of_size(10, 10), max_pixels=99)
