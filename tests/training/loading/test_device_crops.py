"""Crops made of images on the device are the host's to the bit, and what they cannot equal is left to the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import Command, Run, ToyOptions
from tests.reliability.conftest import assert_same_checkpoint, metrics, newest
from torch.nn.functional import interpolate

from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.data.source import ArraySource, Source, Subset
from convmixer.errors import UserError
from convmixer.training.loading import create, device_crops
from convmixer.training.loading.device_crops import MAX_SIDE, DeviceCrops, resize_weights
from convmixer.training.loading.device_images import images_for_device
from convmixer.training.loading.device_loader import MAX_BYTES, DeviceLoader
from convmixer.training.loading.torch_resize import torch_resize
from convmixer.training.loading.worker_loader import WorkerLoader

CPU = torch.device("cpu")
MODES = ("bilinear", "bicubic")


def noise(*shape: int) -> np.ndarray:
    """Noise, every second image of it in black and white: the sums that leave 0 to 255."""
    pixels = np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)
    pixels[1::2] = np.where(pixels[1::2] > 127, 255, 0)
    return pixels


def made(*shape: int) -> ArraySource:
    return ArraySource(noise(*shape), np.arange(shape[0]) % 2, ClassMap(("a", "b")), "made")


def reader(source: Source, size: int = 8, **changes: Any) -> TrainReader:
    grey = changes.pop("channels", 3) == 1
    preprocessing = Preprocessing(size=size, mean=(0.5,), std=(0.5,)) if grey else Preprocessing(size=size)
    return TrainReader(source, preprocessing, resize=torch_resize, **changes)


def test_weights_by_hand() -> None:
    # A triangle stretched twofold over pixels at distances of -1.5, -0.5, 0.5, 1.5: 1, 3, 3, 1 eighths; at the border
    # 3, 3, 1 of seven. 3 / 7 fits into 16 bits up to a factor of 2 ** 16.
    weights = resize_weights(8, 4, 1) * 2**16
    np.testing.assert_array_equal(weights[1], [0, 8192, 24576, 24576, 8192, 0, 0, 0])
    np.testing.assert_array_equal(weights[0, :4], [28087, 28087, 9362, 0])  # 65536 x 3/7 and 1/7, rounded
    np.testing.assert_array_equal(resize_weights(5, 5, 2), np.eye(5))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 32), (50, 80), (MAX_SIDE, 9)])
@pytest.mark.parametrize("size", [1, 8, 24, 33, 64, 100])
def test_boxes_are_resized_as_by_torch(channels: int, height: int, width: int, size: int) -> None:
    images, random, count = noise(4, height, width, channels), np.random.default_rng(size), 100
    crops = DeviceCrops(reader(made(1, 8, 8, 3), size), images.shape[1:], CPU)
    w, h = random.integers(1, width + 1, count), random.integers(1, height + 1, count)
    left, top = (
        (random.random(count) * (width - w + 1)).astype(int),
        (random.random(count) * (height - h + 1)).astype(int),
    )
    boxes, indices = np.column_stack((left, top, w, h, random.integers(0, 2, count))), random.integers(0, 4, count)
    found = crops.cut(torch.from_numpy(images), indices, boxes)
    assert found.shape == (count, size, size, channels)
    assert found.is_contiguous()
    for crop, index, (x, y, w_, h_, mode) in zip(found, indices, boxes.tolist(), strict=True):
        box = torch.from_numpy(images[index : index + 1, y : y + h_, x : x + w_].copy()).permute(0, 3, 1, 2)
        expected = interpolate(box, (size, size), mode=MODES[mode], antialias=True, align_corners=False)
        assert torch.equal(crop, expected[0].permute(1, 2, 0))
    assert crops.is_exact()


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((40, 12, 12, 3), {}),
        ((40, 32, 20, 3), {"interpolation": "bicubic"}),
        ((40, 9, 30, 1), {"channels": 1, "ratio": (1.0, 1.0)}),
        ((40, 8, 8, 3), {"min_crop": 0.99, "interpolation": "bilinear"}),
    ],
)
@pytest.mark.parametrize("limit", [None, 30, 5])
def test_batches_equal_the_loaders(shape: tuple[int, ...], changes: dict[str, Any], limit: int | None) -> None:
    source: Source = made(*shape)
    if limit is not None:
        source = Subset(source, np.arange(limit)[::-1].copy())
    made_by = reader(source, seed=3, **changes)
    assert_batches_equal(made_by)


def assert_batches_equal(made_by: TrainReader) -> None:
    kept = images_for_device(made_by, lambda it: create._decoded(it, made_by), CPU, is_asked=True, say=lambda _: None)
    assert kept is not None
    images, crops = kept
    assert crops is not None
    labels = made_by.source.labels
    sampler = BatchSampler(len(labels), batch_size=8, seed=3, world=2, accumulate=2)
    steps = range(1, 2 * sampler.steps_per_epoch + 1)
    for rank in (0, 1):
        on_device = DeviceLoader(images, labels, sampler, rank=rank, device=CPU, crops=crops).batches(steps)
        loaded = WorkerLoader(made_by, sampler, rank=rank, workers=0, pin=False, timeout=60).batches(steps)
        for one_step, other_step in zip(on_device, loaded, strict=True):
            for one, other in zip(one_step, other_step, strict=True):
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.labels, other.labels)
                assert one.indices.tolist() == other.indices.tolist()
                assert (one.epoch, one.bad) == (other.epoch, other.bad)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """24 photos of 14 x 12, one of them turned by its EXIF tag from 12 x 14, one grey, PNG and JPEG."""
    paths = []
    for number, pixels in enumerate(noise(24, 12, 14, 3)):
        photo = Image.fromarray(pixels if number != 4 else np.ascontiguousarray(pixels.transpose(1, 0, 2)))
        tags = Image.Exif()
        tags[0x0112] = 6 if number == 4 else 1
        path = tmp_path / f"{number:02}.{('png', 'jpg')[number % 2]}"
        (photo.convert("L") if number == 6 else photo).save(path, exif=tags)
        paths.append(path)
    return Files(paths, [number % 2 for number in range(24)])


def test_a_large_batch_is_cropped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_crops, "_AT_ONCE", 12 * 8 * 3 * 3)
    assert_batches_equal(reader(made(40, 12, 12, 3)))


def test_files_are_decoded_once_and_cropped_on_the_device(files: Files) -> None:
    made_by = replace(reader(files, seed=3), preprocessing=Preprocessing(size=8, exif=True))
    assert_batches_equal(made_by)


@pytest.mark.parametrize(
    ("source", "changes", "why"),
    [
        (made(4, 12, 12, 3), {"resize": None}, "Pillow"),
        (made(4, 12, 12, 3), {"interpolation": "lanczos"}, "lanczos"),
        (made(4, 12, 12, 1), {}, "1 channels, the network takes 3"),
        (made(4, 12, MAX_SIDE + 1, 3), {}, f"{MAX_SIDE + 1} x 12 pixels"),
        (
            replace(made(1, 8, 9, 3), pixels=np.broadcast_to(noise(1, 8, 9, 3), (MAX_BYTES // 216 + 1, 8, 9, 3))),
            {},
            "GB",
        ),
    ],
    ids=["pillow", "lanczos", "channels", "large", "many"],
)
def test_what_cannot_be_is_refused_or_left(source: Source, changes: dict[str, Any], why: str) -> None:
    made_by = replace(reader(source), **changes)
    with pytest.raises(UserError, match=f"--cache device: .*{why}.*; try --cache ram"):
        images_for_device(made_by, lambda it: it, CPU, is_asked=True, say=lambda _: None)
    assert images_for_device(made_by, lambda it: it, CPU, is_asked=False, say=lambda _: None) is None
    assert images_for_device(made_by, lambda it: it, torch.device("cuda"), is_asked=False, say=lambda _: None) is None


@pytest.mark.parametrize("kind", ["size", "broken", "scaled", "none"])
def test_files_that_cannot_be_are_refused(kind: str, files: Files) -> None:
    path, size = Path(files.name(17)), 8
    if kind == "size":
        Image.new("RGB", (14, 13)).save(path)
    elif kind == "broken":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "scaled":
        size = 6  # files of 12 pixels may be decoded at half their size
    elif kind == "none":
        files = Files([], [])
    made_by = replace(reader(files), preprocessing=Preprocessing(size=size, exif=True))
    with pytest.raises(UserError, match="--cache device: ") as caught:
        images_for_device(made_by, lambda it: create._decoded(it, made_by), CPU, is_asked=True, say=lambda _: None)
    assert kind == "none" or (path.name if kind != "scaled" else "01.jpg") in str(caught.value)


def test_another_torch_that_resizes_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made_by = reader(made(4, 12, 12, 3))
    one_off = {radius: resize_weights(5, 8, radius) for radius in (1, 2)}
    one_off[2][3] = np.roll(one_off[2][3], 1)
    monkeypatch.setattr(
        device_crops,
        "resize_weights",
        lambda length, side, radius: one_off[radius] if length == 5 else resize_weights(length, side, radius),
    )
    with pytest.raises(UserError, match="--cache device: this torch resizes otherwise"):
        images_for_device(made_by, lambda it: it, CPU, is_asked=True, say=lambda _: None)


def test_other_devices_are_refused() -> None:
    with pytest.raises(UserError, match="--cache device: crops are made on CPUs and CUDA GPUs, not on meta"):
        images_for_device(
            reader(made(4, 12, 12, 3)), lambda it: it, torch.device("meta"), is_asked=True, say=lambda _: None
        )


def test_unasked_crops_are_left_to_loaders_on_a_cpu_and_files_everywhere(files: Files) -> None:
    for source, device in ((made(4, 12, 12, 3), CPU), (files, CPU), (files, torch.device("cuda"))):
        assert images_for_device(reader(source), lambda it: it, device, is_asked=False, say=lambda _: None) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_a_gpu_gives_the_same() -> None:
    device, source = torch.device("cuda"), made(64, 32, 32, 3)
    made_by = reader(source, 32, seed=1)
    kept = images_for_device(made_by, lambda it: it, device, is_asked=False, say=lambda _: None)
    assert kept is not None
    images, crops = kept
    assert crops is not None
    found = crops(torch.from_numpy(images).to(device), np.arange(64), 2).cpu().numpy()
    for index in range(64):
        np.testing.assert_array_equal(found[index], made_by.read(2, index)[0])


def test_a_run_learns_the_same_with_every_cache(
    toy: Path, toy_options: ToyOptions, convmixer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: dict[str, Run] = {}
    for cache in ("none", "ram", "device"):
        (tmp_path / cache).mkdir()
        monkeypatch.chdir(tmp_path / cache)
        done = convmixer("train", *toy_options(toy, cache=cache), "--aa=rand-m9-n2-p1.0", "--mixup=0.2")
        assert done.code == 0, done.err
        runs[cache] = Run.below(tmp_path / cache, done)
    assert "24 training images for the device" in runs["device"].done.err
    assert "training images, 0.00864 MB, are kept on cpu" in runs["device"].done.err
    for cache in ("ram", "device"):
        assert_same_checkpoint(newest(runs[cache].checkpoints), newest(runs["none"].checkpoints))
        assert metrics(runs[cache].summary) == metrics(runs["none"].summary)


def test_a_cache_on_the_device_that_cannot_be_ends_the_command(
    toy: Path, toy_options: ToyOptions, convmixer: Command, here: Path
) -> None:
    done = convmixer("train", *toy_options(toy), "--cache=device", "--resampler=pillow")
    assert done.code == 2
    assert "--cache device: crops are resized by Pillow (--resampler); try --cache ram" in done.error
    assert list(here.iterdir()) == []
