"""A set kept on the device gives what the loader gives, to the bit, and only where every crop is the image itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import Command, Run

from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.data.source import ArraySource, Source, Subset
from convmixer.data.sources.digits import open_digits
from convmixer.data.splits import open_split
from convmixer.training.loading import device_images
from convmixer.training.loading.device_loader import MAX_BYTES, DeviceLoader, whole_images
from convmixer.training.loading.worker_loader import WorkerLoader

GREY = Preprocessing(size=8, mean=(0.5,), std=(0.5,))


def made(height: int, width: int, channels: int = 3, count: int = 20) -> ArraySource:
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return ArraySource(pixels, np.arange(count) % 2, ClassMap(("a", "b")), "made")


def reader(source: Source, size: int = 8, interpolation: str = "random") -> TrainReader:
    return TrainReader(source, Preprocessing(size=size), min_crop=1.0, ratio=(1.0, 1.0), interpolation=interpolation)


@pytest.mark.parametrize("ratio", [(1.0, 1.0), (0.75, 4 / 3), (0.2, 1.0), (1.0, 9.0)])
@pytest.mark.parametrize("size", [1, 7, 8, 32])
@pytest.mark.parametrize("interpolation", ["random", "bilinear", "lanczos"])
def test_what_is_kept_is_what_the_reader_reads_in_any_epoch(
    ratio: tuple[float, float], size: int, interpolation: str
) -> None:
    source = made(size, size)
    wide = replace(reader(source, size, interpolation), ratio=ratio)
    images = whole_images(wide)
    assert images is not None
    for epoch in range(10):
        for index in range(len(source)):
            crop, _, actual, bad = wide.read(epoch, index)
            assert (actual, bad) == (index, None)
            np.testing.assert_array_equal(crop, images[index])


def test_what_is_cropped_resized_or_converted_is_left_to_the_loader(toy: Path) -> None:
    whole = reader(made(8, 8))
    assert whole_images(whole) is not None
    for other in (
        replace(whole, min_crop=0.99),
        replace(whole, ratio=(1.1, 1.3)),
        reader(made(8, 9)),
        reader(made(9, 9)),
        reader(made(8, 8, channels=1)),
        replace(whole, source=open_split("ImageNet", str(toy), "train", train=True)),
    ):
        assert whole_images(other) is None


def test_what_is_too_large_is_left_to_the_loader() -> None:
    count = MAX_BYTES // (8 * 8 * 3)
    pixels = np.broadcast_to(np.zeros((1, 8, 8, 3), np.uint8), (count, 8, 8, 3))  # no memory behind it
    source = ArraySource(pixels, np.zeros(count, np.int64), ClassMap(("a", "b")), "large")
    assert whole_images(reader(source)) is not None
    assert whole_images(reader(replace(source, pixels=np.broadcast_to(pixels[:1], (count + 1, 8, 8, 3))))) is None


@pytest.mark.parametrize("limit", [None, 100, 10])
def test_batches_equal_the_loaders(limit: int | None) -> None:
    digits = open_digits(train=True)
    source = digits if limit is None else Subset(digits, np.arange(0, 7 * limit, 7))
    grey = TrainReader(source, GREY, seed=3, min_crop=1.0, ratio=(1.0, 1.0))
    images = whole_images(grey)
    assert images is not None
    sampler = BatchSampler(len(source), batch_size=16, seed=3, world=2, accumulate=2)
    steps = range(1, 2 * sampler.steps_per_epoch + 1)
    for rank in (0, 1):
        kept = DeviceLoader(images, source.labels, sampler, rank=rank, device=torch.device("cpu")).batches(steps)
        loaded = WorkerLoader(grey, sampler, rank=rank, workers=0, pin=False, timeout=60).batches(steps)
        for one_step, other_step in zip(kept, loaded, strict=True):
            assert len(one_step) == len(other_step) == 2
            for one, other in zip(one_step, other_step, strict=True):
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.labels, other.labels)
                assert one.indices.tolist() == other.indices.tolist()
                assert (one.epoch, one.bad) == (other.epoch, other.bad)


def train_digits(convmixer: Command, folder: Path, *words: str) -> Run:
    roots = [f"--{kind}_root_dir={folder / 'runs' / name}" for kind, name in ROOTS.items()]
    options = "--config digits --arch convmixer_8_2 --epochs 2 --train_num_samples 300 --summary_loss_collect_freq 1"
    done = convmixer("train", *options.split(), "--min_crop=1", "--crop_ratio", "1", "1", *roots, *words)
    assert done.code == 0, done.err
    return Run.below(folder, done)


ROOTS = {"summary": "summary", "ckpt": "checkpoints", "best_ckpt": "best"}
CLOCKLESS = {"images_per_second": 0, "data_wait": 0}
KEPT = "the training images, 0.0192 MB, are kept on cpu"


def test_a_run_learns_the_same_by_both_loaders(
    convmixer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = train_digits(convmixer, tmp_path / "kept", "--aa=rand-m9-n2-p1.0")
    assert KEPT in kept.done.err
    monkeypatch.setattr(device_images, "whole_images", lambda _: None)
    loaded = train_digits(convmixer, tmp_path / "loaded", "--aa=rand-m9-n2-p1.0")
    assert KEPT not in loaded.done.err
    for kind in ("train", "eval"):
        one, other = ([line | CLOCKLESS for line in run.metrics(kind)] for run in (kept, loaded))
        assert one
        assert one == other
