"""The check of a data set, category by category: each fault is made for real in a small folder of its own."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer.data.decode import OPENERS
from convmixer.data.folders import Files
from convmixer.data.formats.signatures import FORMAT_OF_EXTENSION, READ
from convmixer.data.inspection.findings import Finding, Item
from convmixer.data.inspection.html import to_html
from convmixer.data.inspection.probe import probe
from convmixer.data.inspection.report import DatasetReport, inspect, to_record, to_text
from convmixer.data.inspection.splits import list_split
from convmixer.errors import UserError

_drawn = iter(range(10_000))


def picture(width: int = 40, height: int = 36) -> Image.Image:
    """Noise, another one each time."""
    pixels = np.random.default_rng(next(_drawn)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(form: str = "JPEG", image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, form, **options)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A clean data set: two classes with three images to train on and two to evaluate on."""
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                write(tmp_path / "data" / split / name / f"{number}.jpg", encoded())
    return tmp_path / "data"


def report_on(data: Path, *, workers: int = 0, min_side: int = 32, max_imbalance: float = 10.0) -> DatasetReport:
    splits = tuple(list_split(name, str(data), name, f"--{name}_dir") for name in ("train", "val"))
    done: list[int] = []
    report = inspect(
        str(data), splits, min_side=min_side, max_imbalance=max_imbalance, workers=workers, on_done=done.append
    )
    assert sum(done) == report.images
    return report


def findings(data: Path, **options: float) -> dict[str, list[tuple[list[str], str]]]:
    return {
        finding.category: [([report.shown(path) for path in item.paths], item.detail) for item in finding.items]
        for report in [report_on(data, **options)]  # type: ignore[arg-type]
        for finding in report.findings
    }


def test_a_clean_data_set_has_no_findings(data: Path) -> None:
    report = report_on(data)
    assert report.findings == ()
    assert (report.images, report.formats(), report.ignored()) == (10, {"JPEG": 10}, {})
    assert report.sides() == {"width": [40, 40, 40], "height": [36, 36, 36]}
    assert report.size == sum(path.stat().st_size for path in data.rglob("*.jpg"))
    assert to_text(report).endswith("nothing wrong was found")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.jpg", b"", "empty file"),
        ("x.jpg", b"not an image\n", "a text, no image"),
        ("x.jpg", b"\n<!DOCTYPE html><html>404</html>", "an HTML page, no image"),
        ("x.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, no image"),
        ("x.png", b"\0" * 4096, "nothing but zeros, no image"),
        ("x.png", bytes(range(150, 250)) + b"\xff", "no image of a known format"),
    ],
)
def test_what_is_no_image_is_unreadable_and_named(data: Path, name: str, content: bytes, reason: str) -> None:
    write(data / "train/cat" / name, content)
    assert findings(data) == {"unreadable": [([f"train/cat/{name}"], reason)]}


def test_what_cannot_be_opened_is_unreadable_and_nothing_waits_for_it(data: Path) -> None:
    os.mkfifo(data / "train/cat/pipe.jpg")
    (data / "train/dog/link.jpg").symlink_to("nowhere")
    found = [(["train/cat/pipe.jpg"], "not a regular file"), (["train/dog/link.jpg"], "No such file or directory")]
    assert findings(data) == {"unreadable": found}
    assert "pipe.jpg" in to_html(report_on(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP", "BMP"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_files_that_end_early_are_truncated(data: Path, form: str, kept: float) -> None:
    whole = encoded(form)
    name = f"x.{'jpg' if form == 'JPEG' else form.lower()}"
    write(data / "train/cat" / name, whole[: int(len(whole) * kept)])
    found = findings(data)
    assert list(found) == ["truncated"]
    assert found["truncated"][0][0] == [f"train/cat/{name}"]


def test_a_jpeg_that_was_cut_and_closed_is_truncated(data: Path) -> None:
    whole = encoded(image=picture(200, 200))
    write(data / "val/cat/x.jpg", whole[: len(whole) // 2] + b"\xff\xd9")
    assert list(findings(data)) == ["truncated"]


def test_formats_under_other_names(data: Path) -> None:
    write(data / "train/cat/a.jpg", encoded("PNG"))
    write(data / "train/cat/b.png", encoded("GIF"))
    write(data / "train/cat/c.jpg", encoded("TIFF"))
    write(data / "train/cat/d.JPEG", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert findings(data) == {
        "mistyped": [
            (["train/cat/a.jpg"], "PNG under the extension .jpg"),
            (["train/cat/b.png"], "GIF under the extension .png"),
            (["train/cat/c.jpg"], "TIFF under the extension .jpg"),
            (["train/cat/d.JPEG"], "EPS under the extension .jpeg: EPS is not read"),
        ]
    }


def test_what_is_read_can_be_opened_and_has_one_name() -> None:
    assert set(FORMAT_OF_EXTENSION.values()) == set(OPENERS)
    assert set(READ) <= set(OPENERS)


def test_images_of_one_colour_are_blank_and_told_why(data: Path) -> None:
    """Alpha 0 over a picture, 12 bits in a 16-bit file, a page of one colour; a dark photo is none of these."""
    hidden = picture().convert("RGBA")
    hidden.putalpha(0)
    sensor = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16)
    wide = np.random.default_rng(0).integers(0, 4096, (40, 40, 3), dtype=np.uint16)
    write(data / "train/cat/a.png", encoded("PNG", hidden))
    write(data / "train/cat/b.png", encoded("PNG", Image.fromarray(sensor)))
    write(data / "train/cat/c.jpg", encoded("JPEG", Image.new("RGB", (40, 40), (9, 9, 9))))
    write(data / "train/cat/d.png", png_of_16_bits(wide))
    write(data / "train/cat/e.png", encoded("PNG", picture().point(lambda level: level // 12)))
    write(data / "train/cat/f.png", encoded("PNG", Image.fromarray(sensor << 4)))
    assert findings(data) == {
        "blank": [
            (["train/cat/a.png"], "transparent everywhere (alpha 0)"),
            (["train/cat/b.png"], "16 bits per value, of which 12 are used"),
            (["train/cat/c.jpg"], "one colour, 9 9 9"),
            (["train/cat/d.png"], "levels 0 to 15 of 0 to 255"),
        ]
    }


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """Colour of 16 bits per value, which Pillow cannot write: `pixels` uint16 [height, width, 3]."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_class_in_two_unicode_forms_is_reported(data: Path) -> None:
    for form in ("caf\u00e9", "cafe\u0301"):
        write(data / "train" / form / "1.jpg", encoded())
    write(data / "val/cafe\u0301/1.jpg", encoded())
    ((paths, detail),) = findings(data)["classes"]
    assert paths == []
    assert detail == (
        "train: the class 'caf\u00e9' lies in 2 folders whose names look the same (NFC and NFD); they count as one"
    )


def test_small_images(data: Path) -> None:
    write(data / "val/dog/thin.png", encoded("PNG", picture(31, 500)))
    write(data / "val/dog/wide.png", encoded("PNG", picture(500, 32)))
    assert findings(data) == {"small": [(["val/dog/thin.png"], "31 x 500 pixels")]}
    assert len(findings(data, min_side=37)["small"]) == 12


def test_the_same_image_twice(data: Path) -> None:
    one, two, three = encoded(), encoded("BMP"), encoded()
    for name in ("a.jpg", "b.jpg"):
        write(data / "train/cat" / name, one)
    write(data / "train/cat/c.bmp", two)
    write(data / "train/dog/c.png", encoded("PNG", Image.open(io.BytesIO(two))))
    write(data / "train/dog/z.jpg", three)
    write(data / "val/dog/y.jpg", three)
    write(data / "val/cat/y.jpg", three)
    assert findings(data) == {
        "leaking": [(["train/dog/z.jpg", "val/cat/y.jpg", "val/dog/y.jpg"], "same bytes, in 2 classes")],
        "conflicting": [(["train/cat/c.bmp", "train/dog/c.png"], "same pixels, in 2 classes")],
        "duplicate": [(["train/cat/a.jpg", "train/cat/b.jpg"], "same bytes")],
    }


def test_pixels_in_another_shape_are_another_image(data: Path) -> None:
    pixels = np.asarray(picture(40, 50))
    write(data / "train/cat/a.png", encoded("PNG", Image.fromarray(pixels)))
    write(data / "train/cat/b.png", encoded("PNG", Image.fromarray(pixels.reshape(40, 50, 3))))
    assert findings(data) == {}


def test_classes_that_do_not_agree(data: Path) -> None:
    (data / "train/hollow").mkdir()
    write(data / "val/dogs/1.jpg", encoded())
    write(data / "val/<script>/1.jpg", encoded())
    assert findings(data) == {
        "classes": [
            ([], "train: the class 'hollow' has no images"),
            ([], "val: the class 'hollow' is missing"),
            ([], "val: the class '<script>' is not among those of training"),
            ([], "val: the class 'dogs' is not among those of training; is it 'dog'?"),
        ]
    }


def test_unequal_classes(data: Path) -> None:
    for number in range(28):
        write(data / f"train/dog/more{number}.jpg", encoded())
    assert findings(data) == {
        "imbalance": [([], "train: the class 'cat' has 3 images, the largest 10.3 times as many")]
    }
    assert findings(data, max_imbalance=11) == {}


def test_ignored_entries_are_counted_by_why_and_are_no_fault(data: Path) -> None:
    for name in ("train/cat/Thumbs.db", "train/cat/._0.jpg", "val/dog/notes", "val/dog/a.PSD", "val/dog/b.psd"):
        write(data / name, b"x")
    (data / "train/.ipynb_checkpoints").mkdir()
    write(data / "train/readme.txt", b"x")
    report = report_on(data)
    assert report.findings == ()
    ignored = {".psd": 2, "beside the class folders": 2, ".db": 1, "name begins with a dot": 1, "no extension": 1}
    assert report.ignored() == ignored


def test_a_folder_without_classes_is_refused_with_the_layout(tmp_path: Path) -> None:
    write(tmp_path / "train/1.jpg", encoded())
    with pytest.raises(UserError, match=r"--train_dir: .*/train/<class>/<image>"):
        list_split("train", str(tmp_path), "train", "--train_dir")


def nasty(data: Path) -> Path:
    """One of each fault, under names that break pages, lines and terminals."""
    evil = data / "train" / "<script>alert(1)<"
    whole = encoded(image=picture(200, 200))
    write(evil / 'a\nb"\x1b[31m<img src=x onerror=alert(1)>.jpg', whole[: len(whole) // 2])
    write(evil / os.fsdecode(b"\xff&amp;.png"), whole)
    write(data / "val/dog/..jpg.jpg", whole)
    write(evil / "small.png", encoded("PNG", picture(5, 5)))
    return data


def test_any_number_of_processes_finds_the_same(data: Path) -> None:
    for number in range(40):
        write(data / f"train/dog/more{number}.png", encoded("PNG"))
    alone = report_on(nasty(data))
    spread = report_on(data, workers=2)
    assert to_record(alone) == to_record(spread)
    assert to_text(alone) == to_text(spread)
    assert to_html(alone) == to_html(spread)


def test_nothing_is_written_into_the_data(data: Path) -> None:
    def state() -> list[tuple[str, int, str]]:
        paths = sorted(nasty_data.rglob("*"))
        return [
            (str(p), p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "")
            for p in paths
        ]

    nasty_data = nasty(data)
    before = state()
    to_html(report_on(nasty_data))
    assert state() == before


def test_hostile_names_are_escaped_in_text_and_page(data: Path) -> None:
    report = report_on(nasty(data))
    text, page = to_text(report), to_html(report)
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"a\nb" in text
    assert r"\x1b[31m" in text
    assert r"\udcff" in text
    text.encode()
    page.encode()
    assert "\x1b" not in page
    for tag in ("<script", "<img src=x"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)&lt;/a\\nb&quot;" in page
    assert "\\udcff&amp;amp;.png" in page
    # Nothing is fetched: the only addresses are the pictures themselves.
    assert page.count("src=") == page.count('src="data:image/png;base64,') + page.count("src=x")
    assert "http" not in page.replace("http-equiv", "")


def test_the_chart_has_every_class_and_count(data: Path) -> None:
    write(data / "train/dog/9.jpg", encoded())
    page = to_html(report_on(data))
    for words in ("cat, train: 3", "cat, val: 2", "dog, train: 4", "dog, val: 2", ">4 / 2</text>"):
        assert words in page
    assert page.index(">dog</text>") < page.index(">cat</text>")


def test_long_lists_are_cut_in_text_and_page_but_not_in_the_record(data: Path) -> None:
    items = tuple(Item((str(data / f"train/cat/{i}.jpg"),), "empty file") for i in range(205))
    for item in items:
        write(Path(item.paths[0]), b"")
    many = replace(report_on(data), findings=(Finding("unreadable", items),))
    assert "  and 195 more" in to_text(many)
    assert "<p>and 5 more</p>" in to_html(many)
    assert len(to_record(many)["findings"]["unreadable"]) == 205


def test_a_file_beyond_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        file.truncate(6 << 30)
    assert probe(Files([path]), 0).error == "larger than 400 MiB"
