"""What an image becomes in a shard: its bytes, or a smaller JPEG that training reads the same way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tests.project import PHOTOS, needs_photos

from convmixer.data.classes import ClassMap
from convmixer.data.decode import decode_image
from convmixer.data.limits import BadImage
from convmixer.data.source import ArraySource
from convmixer.packing.images import ImageSize, packed_image


class One:
    """A source of one image file."""

    classes, labels, ignored = ClassMap(("a", "b")), np.zeros(1, np.int64), dict[str, int]()

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "x"

    def read(self, index: int) -> bytes:
        return self.encoded


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def gradient(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    planes = [columns * 255 // width, rows * 255 // height, (rows + columns) % 256]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("form", "extension"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WebP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp")]
)
@pytest.mark.parametrize("short_side", [None, 60, 61])
def test_what_is_not_reduced_keeps_its_bytes(form: str, extension: str, short_side: int | None) -> None:
    content = encoded(gradient(80, 60), form)
    assert packed_image(One(content), 0, ImageSize(short_side)) == (extension, content)


@pytest.mark.parametrize(("size", "reduced"), [((80, 60), (40, 30)), ((61, 90), (30, 44)), ((300, 31), (290, 30))])
def test_the_shorter_side(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    """90 * 30 / 61 = 44.26; 300 * 30 / 31 = 290.3."""
    extension, content = packed_image(One(encoded(gradient(*size), "PNG")), 0, ImageSize(30))
    assert extension == ".jpg"
    assert Image.open(io.BytesIO(content)).size == reduced


def test_pixels_are_pillows_lanczos_in_a_jpeg_of_that_quality() -> None:
    image = gradient(80, 60)
    _, content = packed_image(One(encoded(image, "PNG")), 0, ImageSize(30, quality=92))
    assert content == encoded(image.resize((40, 30), Image.Resampling.LANCZOS), "JPEG", quality=92)
    file = Image.open(io.BytesIO(content))
    assert [(part[1], part[2]) for part in file.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]  # 4:2:0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("exif", [False, True])
def test_orientation_means_the_same_as_before(orientation: int, exif: bool) -> None:
    """The decoded image of the packed file is that of the old one, made smaller, with `exif` on and off."""
    tag = Image.Exif()
    tag[0x0112] = orientation
    old = encoded(gradient(80, 60), "JPEG", quality=95, exif=tag)
    _, new = packed_image(One(old), 0, ImageSize(30))
    wanted = decode_image(old, exif=exif)
    wanted = wanted.resize((wanted.width // 2, wanted.height // 2), Image.Resampling.LANCZOS)
    found = decode_image(new, exif=exif)
    assert found.size == wanted.size
    assert np.abs(np.asarray(found, int) - np.asarray(wanted, int)).mean() < 3


@pytest.mark.parametrize(
    ("image", "mode", "level"),
    [
        (Image.new("L", (40, 40), 100), "L", 100),
        (Image.fromarray(np.full((40, 40), 100 << 8, np.uint16)), "L", 100),
        (Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "RGB", 255),  # white behind what is transparent
        (Image.new("LA", (40, 40), (0, 0)), "RGB", 255),
        (Image.new("1", (40, 40), 1), "L", 255),
    ],
)
def test_other_modes(image: Image.Image, mode: str, level: int) -> None:
    _, content = packed_image(One(encoded(image, "PNG")), 0, ImageSize(20))
    file = Image.open(io.BytesIO(content))
    assert file.mode == mode
    assert abs(int(np.asarray(file).mean()) - level) <= 1


def test_pixels_of_a_set_without_files() -> None:
    pixels = np.arange(2 * 8 * 8 * 1, dtype=np.uint8).reshape(2, 8, 8, 1)
    source = ArraySource(pixels, np.zeros(2, np.int64), ClassMap(("a", "b")), "x")
    extension, content = packed_image(source, 1, ImageSize())
    assert extension == ".png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels[1, ..., 0])


@pytest.mark.parametrize("short_side", [None, 30])
def test_what_training_could_not_read_is_refused(short_side: int | None) -> None:
    whole = encoded(gradient(80, 60), "JPEG")
    for content in (whole[: len(whole) // 2], whole[: len(whole) // 2] + b"\xff\xd9", b"text", b""):
        with pytest.raises(BadImage):
            packed_image(One(content), 0, ImageSize(short_side))
    with pytest.raises(BadImage, match="more than the limit"):
        packed_image(One(encoded(gradient(80, 60), "PNG")), 0, ImageSize(short_side, max_pixels=1000))


@needs_photos
def test_photos_lose_little() -> None:
    """PSNR of the packed photos against the reduced ones before JPEG: above 30 dB, 35 dB on average."""
    ratios = []
    for path in sorted(PHOTOS.glob("*.*"))[:20]:
        content = path.read_bytes()
        whole = decode_image(content)
        factor = 288 / min(whole.size)
        if factor >= 1:
            continue
        _, packed = packed_image(One(content), 0, ImageSize(288))
        found = decode_image(packed)
        error = np.asarray(found, float) - np.asarray(whole.resize(found.size, Image.Resampling.LANCZOS), float)
        ratios.append(10 * np.log10(255**2 / (error**2).mean()))
    assert len(ratios) >= 10
    assert min(ratios) > 30
    assert np.mean(ratios) > 35
