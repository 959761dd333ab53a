"""Words of a command line to images: what each kind of word stands for, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.range_server import range_server

from convmixer.data.limits import BadImage
from convmixer.data.unlabelled import opening
from convmixer.data.unlabelled.opening import open_images
from convmixer.errors import UserError


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images of several formats, the level of grey of each its number, and one below; the current folder is
    beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(("0.png", "1.webp", "2.bmp", "3.gif", "4.tiff", "below/5.png")):
        Image.new("L", (6, 6), 10 * number).save(folder / name)
    (folder / "notes.md").write_text("no image")
    return folder


def levels(words: Sequence[str], **options: Any) -> list[int]:
    """The grey of each image that the words stand for, tenths of it."""
    source = open_images(words, **options)
    found = []
    for index in range(len(source)):
        encoded = source.read(index)
        assert isinstance(encoded, bytes)
        found.append(int(np.asarray(Image.open(io.BytesIO(encoded)).convert("L"))[0, 0]) // 10)
    return found


def test_folders_patterns_and_several_words(pictures: Path) -> None:
    assert levels(["pictures"]) == [0, 1, 2, 3, 4]
    assert levels(["pictures"], recursive=True) == [0, 1, 2, 3, 4, 5]
    assert levels(["pictures/*.bmp", "pictures/0.png", "pictures/*/*"]) == [2, 0, 5]
    assert levels(["pictures/**/*.png"]) == [0, 5]
    assert open_images(["pictures", "pictures/below"]).ignored == {".md": 1}
    assert open_images(["pictures/0.png", "pictures/2.bmp"]).name(1) == "pictures/2.bmp"


def test_lists(pictures: Path, tmp_path: Path) -> None:
    (pictures / "some.txt").write_text("2.bmp\r\n\nbelow/5.png\n")
    assert levels(["pictures/some.txt"]) == [2, 5]
    # As `find` writes it, from the current folder.
    (pictures / "found.txt").write_text("pictures/1.webp\npictures/0.png\n")
    assert levels(["pictures/found.txt"]) == [1, 0]
    (tmp_path / "table.csv").write_text("id,Path\n7,pictures/4.tiff,more,than columns\n8,pictures/0.png\n")
    assert levels(["table.csv"]) == [4, 0]
    (tmp_path / "table.tsv").write_text("where\tother\npictures/3.gif\tx\n")
    assert levels(["table.tsv"], column="where") == [3]
    rows = [{"image": "pictures/2.bmp"}, {"image": str(pictures / "0.png")}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert levels(["rows.jsonl"]) == [2, 0]


def test_stdin_is_an_image_or_a_list(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    typed((pictures / "2.bmp").read_bytes())
    assert levels(["-"]) == [2]
    typed(b"pictures/1.webp\npictures/below/5.png\n")
    assert levels(["-", "pictures/0.png"]) == [1, 5, 0]
    typed(b"\n")
    with pytest.raises(UserError, match="stdin: names no images"):
        open_images(["-"])
    typed(b"\0\1\2")
    with pytest.raises(UserError, match="stdin: is no image that is read, and no text of paths"):
        open_images(["-"])
    with pytest.raises(UserError, match="can be read once"):
        open_images(["-", "-"])


def test_tar_files_without_labels(pictures: Path, tmp_path: Path) -> None:
    for number, names in enumerate((("0.png", "1.webp", "notes.md"), ("2.bmp",))):
        with tarfile.open(tmp_path / f"s-{number}.tar", "w") as tar:
            for name in names:
                tar.add(pictures / name, name)
    assert levels(["s-0.tar"]) == [0, 1]
    assert levels(["s-{0..1}.tar"]) == levels(["s-*.tar"]) == [0, 1, 2]
    assert open_images(["s-0.tar"]).name(1) == "s-0.tar/1.webp"
    assert open_images(["s-0.tar"]).ignored == {".md": 1}
    (tmp_path / "only tars").mkdir()
    (tmp_path / "s-1.tar").rename(tmp_path / "only tars/x.tar")
    assert levels(["only tars"]) == [2]


def test_parquet_of_bytes_and_of_paths(pictures: Path, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = [(pictures / name).read_bytes() for name in ("0.png", "1.webp", "2.bmp", "3.gif")]
    structs = [{"bytes": each, "path": None} for each in encoded]
    table = arrow.table({"image": structs, "label": [0, 1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert levels(["a.parquet"]) == [0, 1, 2, 3]
    parquet.write_table(arrow.table({"jpg": [*encoded[:2], None]}), tmp_path / "b.parquet")
    source = open_images(["b.parquet"], column="jpg")
    assert [source.name(index) for index in range(3)] == ["b.parquet/0", "b.parquet/1", "b.parquet/2"]
    assert source.read(1) == encoded[1]
    with pytest.raises(BadImage, match="no image in this row"):
        source.read(2)
    parquet.write_table(arrow.table({"url": ["pictures/4.tiff", "pictures/0.png"]}), tmp_path / "c.parquet")
    assert levels(["c.parquet"]) == [4, 0]
    with pytest.raises(UserError, match=r"b\.parquet: has no column of image files .*; its columns are jpg"):
        open_images(["b.parquet"])
    (tmp_path / "d.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"d\.parquet: cannot be read"):
        open_images(["d.parquet"])


def test_addresses(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setattr("convmixer.data.retrying.RETRY_DELAYS", (0.01,) * 3)
    with range_server(tmp_path) as (address, behaviour):
        assert levels([f"{address}/pictures/2.bmp"]) == [2]
        (tmp_path / "some.txt").write_text(f"pictures/1.webp\n{address}/pictures/0.png\n")
        assert levels([f"{address}/some.txt"]) == [1, 0]
        behaviour.fails = 2  # a server that is busy at first
        assert levels([f"{address}/pictures/4.tiff"]) == [4]
        gone = open_images([f"{address}/pictures/gone.png"])
        with pytest.raises(BadImage, match=r"^there is no such file"):
            gone.read(0)
    assert levels([f"file://{pictures}/"]) == [0, 1, 2, 3, 4]
    assert levels([f"file://{pictures}"], recursive=True) == [0, 1, 2, 3, 4, 5]
    assert levels([f"file://{pictures}/*.png"]) == [0]


def test_a_file_that_is_too_large_to_fetch(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setattr("convmixer.data.unlabelled.located.MAX_BYTES", 60)
    with range_server(tmp_path) as (address, _):
        source = open_images([f"{address}/pictures/0.png"])
        with pytest.raises(BadImage, match=r"^larger than 0 MiB"):
            source.read(0)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gone", "there is no image or folder gone"),
        ("gone*.png", r"there is nothing that gone\*\.png matches"),
        ("*/*.md", r"\*/\*\.md: none of the 1 files that it matches is an image"),
        ("pictures/below/none", "there is no image or folder"),
        ("empty.txt", r"empty\.txt: names no images"),
        ("bare.csv", r"bare\.csv: has no column of image files .*; its columns are a, b"),
        ("odd.jsonl", r"odd\.jsonl, line 2: no JSON object"),
        ("gap.csv", r"gap\.csv, line 3: no path"),
        ("nowhere://x/y.png", "nowhere://x/y.png: "),
    ],
)
def test_words_that_stand_for_nothing(pictures: Path, tmp_path: Path, word: str, message: str) -> None:
    if "://" in word:
        pytest.importorskip("fsspec")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    (tmp_path / "odd.jsonl").write_text('{"path": "x"}\n[]\n')
    (tmp_path / "gap.csv").write_text("path,b\nx,2\n,3\n")
    with pytest.raises(UserError, match=message):
        levels([word])


def test_no_words() -> None:
    with pytest.raises(UserError, match="DATA: an image or a folder of images is needed"):
        opening.open_images([])
