"""The preprocessing in an ONNX graph against Pillow's, on real photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tests.project import PHOTOS, needs_photos

from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import ArraySource
from convmixer.exporters.preprocess import max_difference, preprocessing_graph


@needs_photos
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.96), (65, 0.875)])
def test_photos_within_one_level(size: int, crop_pct: float, interpolation: str) -> None:
    photos = Files(sorted(PHOTOS.iterdir())[:12])
    inputs = Preprocessing(size=size, crop_pct=crop_pct, interpolation=interpolation)
    assert max_difference(inputs, photos) < 1.001


@needs_photos
def test_nearly_all_values_are_the_very_same() -> None:
    """Against Pillow called here: shorter side to 233, centre crop of 224, as torchvision's Resize and CenterCrop."""
    image = Image.open(sorted(PHOTOS.iterdir())[0]).convert("RGB")
    inputs = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)  # the graph then gives the levels themselves
    session = onnxruntime.InferenceSession(preprocessing_graph(inputs).SerializeToString())
    (found,) = session.run(None, {"images": np.asarray(image)[None]})
    width, height = image.size
    short = min(width, height)
    resized = image.resize((233 * width // short, 233 * height // short), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    difference = np.abs(found[0] - expected)
    assert difference.max() < 1.001
    assert (difference > 0.5).mean() < 0.001


def test_grey_images_that_are_enlarged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    source = ArraySource(pixels, np.zeros(3, np.int64), ClassMap(("a",)), "test")
    inputs = Preprocessing(size=20, crop_pct=0.9, interpolation="bilinear", mean=(0.3,), std=(0.4,))
    assert max_difference(inputs, source) < 1.001


def test_images_that_cannot_be_brought_to_the_size_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("long.png", "text.png", "photo.png")]
    Image.new("RGB", (1, 900_000)).save(paths[0])
    paths[1].write_text("no image")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(paths[2])
    assert max_difference(Preprocessing(size=20), Files(paths)) < 1.001
