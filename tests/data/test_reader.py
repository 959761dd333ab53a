from __future__ import annotations

import pickle
import threading
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader, read_batches
from convmixer.data.source import Subset
from convmixer.data.splits import open_split
from convmixer.errors import UserError

GREY = Preprocessing(size=8, crop_pct=1.0, mean=(0.5,), std=(0.5,))
RGB = Preprocessing(size=8, crop_pct=1.0)
DIGITS = open_split("digits", None, "val", train=False)


class Images:
    """`count` images of one grey level each, 0, 1, ...; those in `bad` are cut short, reading `broken` fails."""

    classes = ClassMap(("even", "odd"))

    def __init__(self, count: int, bad: Set[int] = frozenset(), broken: int | None = None) -> None:
        self.count, self.bad, self.broken = count, bad, broken
        self.labels = np.arange(count) % 2
        self.ignored: dict[str, int] = {}
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> bytes | np.ndarray:
        self.reads += 1
        if index == self.broken:
            raise RuntimeError("the disk is gone")
        return b"cut short" if index in self.bad else np.full((8, 8, 1), index, dtype=np.uint8)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 100, 359, 1000])
def test_batches_come_whole_and_in_order(threads: int, batch_size: int) -> None:
    batches = list(read_batches(DIGITS, GREY, batch_size, threads=threads))
    assert [len(b.images) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), np.arange(359))
    images = np.concatenate([b.images for b in batches])
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.stack([DIGITS.read(i) for i in range(359)]))


@pytest.mark.parametrize("threads", [0, 2])
def test_a_part_of_the_set(threads: int) -> None:
    chosen = np.arange(2, 359, 3)
    batches = list(read_batches(DIGITS, GREY, 50, indices=chosen, threads=threads))
    np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), chosen)
    np.testing.assert_array_equal(batches[0].images[1], DIGITS.read(5))
    assert list(read_batches(DIGITS, GREY, 50, indices=np.array([], dtype=np.int64), threads=threads)) == []


@pytest.mark.parametrize("preprocessing", [GREY, replace(GREY, size=7), replace(GREY, crop_pct=0.8), RGB])
def test_a_set_in_memory_gives_what_files_give(preprocessing: Preprocessing) -> None:
    class Hidden(Images):
        def read(self, index: int) -> bytes | np.ndarray:
            return DIGITS.read(2 * index)

    half = Subset(DIGITS, np.arange(0, 359, 2))
    (held,), (read,) = (read_batches(half, preprocessing, 200), read_batches(Hidden(180), preprocessing, 200))
    np.testing.assert_array_equal(held.images, read.images)
    np.testing.assert_array_equal(held.indices, read.indices)


@pytest.mark.parametrize("threads", [0, 2])
def test_bad_images_are_reported_and_left_out(threads: int) -> None:
    batches = list(read_batches(Images(10, bad={0, 3, 6, 7, 8}), GREY, 3, threads=threads))
    assert [b.indices.tolist() for b in batches] == [[1, 2], [4, 5], [], [9]]
    assert [[index for index, _ in b.bad] for b in batches] == [[0], [3], [6, 7, 8], []]
    assert [b.images.shape for b in batches] == [(n, 8, 8, 1) for n in (2, 2, 0, 1)]
    assert [b.images[:, 0, 0, 0].tolist() for b in batches] == [[1, 2], [4, 5], [], [9]]
    assert "a text, no image" in batches[0].bad[0][1]


def test_files_that_are_gone_are_bad_images(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "there.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    files = Files([tmp_path / name for name in ("gone.png", "there.png", "folder.png", "link.png")])
    (batch,) = read_batches(files, RGB, 4)
    assert batch.indices.tolist() == [1]
    assert [index for index, _ in batch.bad] == [0, 2, 3]
    assert batch.bad[0][1] == "No such file or directory"


@pytest.mark.parametrize("threads", [0, 2])
def test_other_errors_are_not_hidden(threads: int) -> None:
    with pytest.raises(RuntimeError, match="disk is gone"):
        list(read_batches(Images(10, broken=5), GREY, 2, threads=threads))


def test_leaving_early_ends_the_threads_and_reads_no_further() -> None:
    images = Images(100_000)
    before = threading.active_count()
    batches = read_batches(images, GREY, 10, threads=3, ahead=2)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    assert images.reads <= 10 * (2 + 1)


def test_threads_work_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=10)

    class Meeting(Images):
        def read(self, index: int) -> bytes | np.ndarray:
            meeting.wait()  # returns once three reads wait at the same time
            return super().read(index)

    assert len(list(read_batches(Meeting(6), GREY, 2, threads=3))) == 3


def test_train_read_is_a_function_of_seed_epoch_and_index() -> None:
    reader = TrainReader(DIGITS, GREY, seed=1, min_crop=0.3)
    crop, label, actual, bad = reader.read(0, 17)
    assert (crop.shape, crop.dtype) == ((8, 8, 1), np.dtype(np.uint8))
    assert (label, actual, bad) == (DIGITS.labels[17], 17, None)
    reader.read(5, 3)
    for same in (reader, pickle.loads(pickle.dumps(reader))):
        np.testing.assert_array_equal(same.read(0, 17)[0], crop)
    for other in (reader.read(1, 17), TrainReader(DIGITS, GREY, seed=2, min_crop=0.3).read(0, 17)):
        assert (other[0] != crop).any()


def test_train_read_of_the_whole_image_is_the_image() -> None:
    reader = TrainReader(DIGITS, GREY, min_crop=1.0, ratio=(1.0, 1.0), interpolation="bicubic")
    np.testing.assert_array_equal(reader.read(3, 30)[0], DIGITS.read(30))


def test_train_crops_share_no_draws() -> None:
    # All images are the same: two equal crops would be of one place.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)

    class Same(Images):
        def read(self, index: int) -> np.ndarray:
            return noise

    reader = TrainReader(Same(50), GREY, min_crop=0.08)
    crops = {reader.read(epoch, index)[0].tobytes() for epoch in range(2) for index in range(50)}
    assert len(crops) >= 98  # a few boxes are the whole image, or nearly


def test_a_bad_image_is_replaced_by_the_same_other_one_and_reported() -> None:
    reader = TrainReader(Images(100, bad={7, 8}), GREY)
    crop, label, actual, bad = reader.read(2, 7)
    assert bad is not None
    assert bad[0] == 7
    assert "a text, no image" in bad[1]
    assert actual not in (7, 8)
    assert crop[0, 0, 0] == actual
    assert label == actual % 2
    assert reader.read(2, 7)[1:] == (label, actual, bad)
    assert len({reader.read(epoch, 7)[2] for epoch in range(20)}) > 10  # another each epoch


def test_replacements_that_are_bad_are_replaced_too() -> None:
    reader = TrainReader(Images(40, bad=set(range(28))), GREY)
    actual = [reader.read(0, index)[2] for index in range(40)]
    assert all(index >= 28 for index in actual)
    assert actual[28:] == list(range(28, 40))


def test_a_set_of_bad_images_ends_with_a_name() -> None:
    with pytest.raises(UserError, match="image 3 and 20 images in its place cannot be decoded") as refusal:
        TrainReader(Images(9, bad=set(range(9))), GREY).read(0, 3)
    assert refusal.value.exit_code == 1
