from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tests.project import PHOTOS, needs_photos

from convmixer.data.crops import RESAMPLE
from convmixer.data.folders import Files
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.training.loading.torch_resize import torch_resize


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pillows(pixels: np.ndarray, side: int, interpolation: str) -> np.ndarray:
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    return np.array(image.resize((side, side), RESAMPLE[interpolation])).reshape(side, side, -1)


@pytest.mark.parametrize("interpolation", sorted(RESAMPLE))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(300, 200), (65, 64), (64, 64), (7, 90), (1, 1), (640, 33)])
def test_it_is_within_two_levels_of_pillows(shape: tuple[int, int], channels: int, interpolation: str) -> None:
    pixels = noise(*shape, channels)
    before = pixels.copy()
    resized = torch_resize(pixels, 64, interpolation)
    assert (resized.shape, resized.dtype) == ((64, 64, channels), np.dtype(np.uint8))
    difference = np.abs(resized.astype(int) - pillows(pixels, 64, interpolation))
    assert difference.max() <= {"bilinear": 1, "bicubic": 2}.get(interpolation, 0)
    np.testing.assert_array_equal(pixels, before)


def test_it_does_not_depend_on_the_number_of_threads() -> None:
    pixels, threads = noise(500, 400), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = torch_resize(pixels, 224, "bicubic")
        torch.set_num_threads(2)
        np.testing.assert_array_equal(one, torch_resize(pixels, 224, "bicubic"))
    finally:
        torch.set_num_threads(threads)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@needs_photos
def test_crops_of_photos_are_nearly_pillows() -> None:
    paths = []
    for path in sorted(PHOTOS.rglob("*.[jJ]*"))[:40]:
        with Image.open(path) as photo:
            paths += [path] if min(photo.size) < 2 * 224 else []  # none that is read smaller
    photos = Files(paths)
    ours = TrainReader(photos, Preprocessing(), resize=torch_resize)
    pillow = TrainReader(photos, Preprocessing())
    assert min(psnr(ours.read(0, i)[0], pillow.read(0, i)[0]) for i in range(len(photos))) > 60


@needs_photos
@pytest.mark.parametrize("times", [3, 6, 11])
def test_large_files_are_read_smaller_and_look_the_same(times: int) -> None:
    # The pixels that a photo has, spread over a larger file, as a camera's with more of them.
    for path in sorted(PHOTOS.rglob("*.[jJ]*"))[:3]:
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        photo = photo.resize((photo.width * times, photo.height * times), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=95)

        class Photo(Files):
            encoded = file.getvalue()

            def read(self, index: int) -> bytes:
                return self.encoded

        reader = TrainReader(Photo([path], [0]), Preprocessing(size=96), min_crop=0.5, resize=torch_resize)
        pillow = TrainReader(Photo([path], [0]), Preprocessing(size=96), min_crop=0.5)
        for epoch in range(4):
            # A box that begins within a pixel of the smaller image moves by a part of that pixel.
            assert psnr(reader.read(epoch, 0)[0], pillow.read(epoch, 0)[0]) > 26
