"""Test-time augmentation against the views and their mean, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.metrics.score import softmax
from convmixer.test_time_augmentation import AveragingRuntime, augmented


class Linear:
    """Logits that tell every pixel from every other."""

    def __init__(self, size: int) -> None:
        self.weights = np.random.default_rng(0).normal(size=(size * size, 3)) / 300

    def logits(self, images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1) @ self.weights).astype(np.float32)


def test_crops_and_their_mirror_images_are_those_of_torchvision() -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 10, 10, 1), np.uint8)
    runtime = Linear(6)
    views = functional.ten_crop(torch.from_numpy(images).permute(0, 3, 1, 2), [6, 6])
    expected = np.mean([softmax(runtime.logits(view.permute(0, 2, 3, 1).numpy())) for view in views], axis=0)
    np.testing.assert_allclose(softmax(AveragingRuntime(runtime, 6).logits(images)), expected, rtol=1e-5)


def test_flip() -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 6, 6, 1), np.uint8)
    runtime, (averaging, preprocessing) = Linear(6), augmented(Linear(6), Preprocessing(size=6), "flip")
    expected = (softmax(runtime.logits(images)) + softmax(runtime.logits(images[:, :, ::-1]))) / 2
    np.testing.assert_allclose(softmax(averaging.logits(images)), expected, rtol=1e-5)
    assert preprocessing == Preprocessing(size=6)


def test_none_changes_nothing_and_crops_want_more_of_the_image() -> None:
    runtime, record = Linear(8), Preprocessing(size=8, crop_pct=0.8)
    assert augmented(runtime, record, "none") == (runtime, record)
    assert augmented(runtime, record, "crops")[1] == Preprocessing(size=10, crop_pct=1.0)
    with pytest.raises(UserError, match="leaves nothing to crop"):
        augmented(runtime, Preprocessing(size=8, crop_pct=1.0), "crops")
