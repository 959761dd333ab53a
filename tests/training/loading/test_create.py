"""What `cache` keeps, and that it changes no batch."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import Command, ToyOptions, Train

from convmixer import machine
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.cache import CachedSource
from convmixer.data.folders import Files
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.training.loading import create
from convmixer.training.loading.torch_resize import torch_resize
from convmixer.training.loading.worker_loader import WorkerLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

COUNT = 24
GREY = Preprocessing(size=16, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Small photos, and one that is read smaller, one that lies on its side, a grey one, a PNG, a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        size = (130, 110) if number == 3 else (30, 25 + number)
        photo = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        tags = Image.Exif()
        tags[0x0112] = 6 if number == 4 else 1
        path = folder / f"{number:02}.{'png' if number == 5 else 'jpg'}"
        (photo.convert("L") if number == 6 else photo).save(path, exif=tags)
        paths.append(path)
    paths[7].write_bytes(paths[7].read_bytes()[:300])
    return Files(paths, [number % 2 for number in range(COUNT)])


def reader_of(files: Files, preprocessing: Preprocessing, resampler: str) -> TrainReader:
    return TrainReader(
        files, preprocessing, seed=5, min_crop=0.3, resize=torch_resize if resampler == "torch" else None
    )


def batches(reader: TrainReader, workers: int) -> list[tuple[torch.Tensor, list[int], list[tuple[int, str]]]]:
    sampler = BatchSampler(COUNT, batch_size=8, seed=5)
    loader = WorkerLoader(reader, sampler, rank=0, workers=workers, pin=False, timeout=60)
    return [(batch.images, batch.indices.tolist(), batch.bad) for (batch,) in loader.batches(range(9))]


@pytest.mark.parametrize("room", ["for all", "for their files", "for few"])
@pytest.mark.parametrize("resampler", ["torch", "pillow"])
@pytest.mark.parametrize("preprocessing", [Preprocessing(size=16), Preprocessing(size=16, exif=True), GREY])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_cache_changes_no_batch(
    files: Files,
    room: str,
    resampler: str,
    preprocessing: Preprocessing,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, (encoded,) = reader_of(files, preprocessing, resampler), create._estimates(files, create._as_it_is)
    kept, budget = {
        "for all": ("decoded", 1 << 30),
        "for their files": ("encoded", encoded),
        "for few": ("encoded", encoded // 2),
    }[room]
    monkeypatch.setattr(machine, "memory", lambda: (2 * budget, 2 * budget))
    lines: list[str] = []
    cached = create._cached(reader, max(workers, 1), is_asked=True, say=lines.append)
    assert isinstance(cached.source, CachedSource)
    assert f"the {kept} training images" in lines[0]
    for one, other in zip(batches(reader, 0), batches(cached, workers), strict=True):
        assert torch.equal(one[0], other[0])
        assert one[1:] == other[1:]
    held = cached.source.arena.kept
    if room == "for few":
        assert 0 < held < COUNT
    if kept == "decoded":
        assert held == COUNT - 1
        assert cached.source.arena.get(7) is None  # the broken one
        # What may be read smaller than it is stays as it lies: a reading from pixels would give others.
        assert isinstance(cached.source.arena.get(3), bytes if resampler == "torch" else np.ndarray)


def test_memory_is_not_taken_unasked_where_it_is_scarce(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(files, Preprocessing(size=16), "torch")
    (decoded,) = create._estimates(files, lambda read: create._decoded(read, reader))
    # By hand: 20 photos of 30 x (25 + number), one of them grey but read in colour, the large one as its file.
    with Image.open(files.name(3)) as large:
        assert min(large.size) >= 32
    small = sum(30 * (25 + number) * 3 for number in range(COUNT) if number not in (3, 7))
    expected = (small + Path(files.name(3)).stat().st_size) / (COUNT - 1) * COUNT
    assert decoded == pytest.approx(expected, rel=1e-3)
    for free, is_cached in ((decoded * 4 + 4, True), (decoded * 4 - 4, False)):
        monkeypatch.setattr(machine, "memory", lambda free=free: (free, free))
        found = create._cached(reader, 1, is_asked=False, say=lambda _: None)
        assert isinstance(found.source, CachedSource) == is_cached
    # Each of two processes on this machine has half.
    monkeypatch.setattr(machine, "memory", lambda: (decoded * 4 + 4,) * 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert create._cached(reader, 1, is_asked=False, say=lambda _: None) is reader


def test_what_is_kept_is_said(train: Train) -> None:
    assert re.search(r"cache: the decoded training images, .* are kept in memory", train("--cache=ram").done.err)


def test_nothing_is_kept_where_nothing_shall_be(train: Train) -> None:
    assert "cache:" not in train("--cache=none").done.err


def test_a_limit_of_the_system_is_no_end(
    toy: Path, toy_options: ToyOptions, convmixer: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "ftruncate", refuse)
    done = convmixer("train", *toy_options(toy), "--cache=ram")
    assert done.code == 2
    assert "--cache ram: this system gives no shared memory: File too large" in done.error
    assert convmixer("train", *toy_options(toy)).code == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_system_without_such_memory_is_no_end(
    toy: Path, toy_options: ToyOptions, convmixer: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    done = convmixer("train", *toy_options(toy), "--cache=ram")
    assert done.code == 2
    assert "--cache ram: this system gives no shared memory: " in done.error
    assert convmixer("train", *toy_options(toy)).code == 0
