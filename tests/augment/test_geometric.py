"""Affine operations against timm's on Pillow images.

Pillow computes in float64, we weigh in float32: where the exact value is (nearly) whole, one of the two cuts off a
level more. So: never more than 1 level, on less than 1 % of the values; an edge misplaced by a pixel would show tens.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_ops

from convmixer.augment.draws import RESAMPLES
from convmixer.augment.geometric import GEOMETRIC, affine, matrices
from convmixer.policies.timm_magnitudes import LEVELLED, arguments

FILL = (124, 116, 104)
MAX_LEVELS = 1
MAX_FRACTION = 0.01


def ours(op: str, image: Image.Image, argument: float, resample: str) -> np.ndarray:
    levels = torch.from_numpy(np.array(image)).float().permute(2, 0, 1)[None]
    matrix = torch.from_numpy(matrices(op, np.array([argument]), image.height, image.width))
    return affine(levels, matrix, torch.tensor(FILL).float(), resample)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("op", [op for op in GEOMETRIC if op in LEVELLED])
@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_equals_timm(op: str, resample: Image.Resampling, pictures: list[Image.Image]) -> None:
    differences = []
    for image in pictures:
        for level in (0.0, 0.37, 3.3, 6.9, 9.0, 10.0):
            for sign in (-1.0, 1.0):
                argument = float(arguments(op, np.array([level]), np.array([sign]), np.zeros(1))[0])
                theirs = timm_ops.NAME_TO_OP[op](image, argument, resample=resample, fillcolor=FILL)
                found = ours(op, image, argument, resample.name.lower())
                differences.append(np.abs(found - np.array(theirs)).ravel())
    difference = np.concatenate(differences)
    assert difference.max() <= MAX_LEVELS
    assert (difference > 0).mean() < MAX_FRACTION


@pytest.mark.parametrize("op", GEOMETRIC)
@pytest.mark.parametrize("resample", RESAMPLES)
def test_no_turn_leaves_the_image(op: str, resample: str, pictures: list[Image.Image]) -> None:
    for image in pictures:
        np.testing.assert_array_equal(ours(op, image, 0.0, resample), np.array(image))


@pytest.mark.parametrize("resample", RESAMPLES)
def test_whole_shift_moves_pixels_and_fills(resample: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8))
    moved = ours("TranslateXRel", image, 0.3, resample)
    np.testing.assert_array_equal(moved[:, :7], np.array(image)[:, 3:])
    np.testing.assert_array_equal(moved[:, 7:], np.broadcast_to(FILL, (6, 3, 3)))


def test_each_image_of_a_batch_has_its_own_matrix(photos: list[Image.Image]) -> None:
    batch = torch.stack([torch.from_numpy(np.array(image)).float().permute(2, 0, 1) for image in photos])
    degrees = np.linspace(-30, 30, len(photos))
    matrix = torch.from_numpy(matrices("Rotate", degrees, 80, 96))
    for resample in RESAMPLES:
        together = affine(batch, matrix, torch.tensor(FILL).float(), resample)
        for row, image in enumerate(photos):
            alone = ours("Rotate", image, float(degrees[row]), resample)
            np.testing.assert_array_equal(together[row].permute(1, 2, 0).numpy(), alone)
