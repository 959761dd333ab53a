"""What is drawn, against samples of timm's transforms; what is done, against timm's operations on each image."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_policies

from convmixer.augment.auto_augment import apply_layer, auto_augment
from convmixer.augment.draws import NO_OP, RESAMPLES, Layer, draw_layers, fill_levels
from convmixer.augment.geometric import GEOMETRIC
from convmixer.data.preprocessing import IMAGENET_MEAN
from convmixer.policies.spec import AugMix, parse_policy
from convmixer.policies.timm_magnitudes import OPS

SAMPLES = 6000
Draw = tuple[str, float]


def sample_timm(spec: str) -> list[list[Draw]]:
    """(operation, argument) of what timm does to each of SAMPLES images."""
    make = timm_policies.rand_augment_transform if spec.startswith("rand") else timm_policies.auto_augment_transform
    transform = make(spec, {"img_mean": (124, 116, 104)})
    done: list[Draw] = []

    def record(op: Any) -> None:
        def function(image: object, *args: float, **_: object) -> object:
            done.append((op.name, float(args[0]) if args else 0.0))
            return image

        op.aug_fn = function

    for op in transform.ops if spec.startswith("rand") else [op for branch in transform.policy for op in branch]:
        record(op)
    random.seed(1)
    np.random.seed(1)
    samples = []
    for _ in range(SAMPLES):
        done.clear()
        transform(object())
        samples.append(list(done))
    return samples


def sample_ours(spec: str, seed: int = 0) -> list[list[Draw]]:
    policy = parse_policy(spec)
    assert not isinstance(policy, AugMix)
    layers = list(draw_layers(policy, "random", (32, 48), seed=seed, epoch=0, indices=np.arange(SAMPLES)))
    return [
        [(OPS[layer.ops[row]], layer.args[row]) for layer in layers if layer.ops[row] != NO_OP]
        for row in range(SAMPLES)
    ]


@pytest.mark.parametrize(
    "spec",
    [
        *("rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "rand-m6-mstd101-p0.8", "rand-m12-mmax15-mstd2"),
        *("rand-m9-mstd1-n4-tweights", "rand-m4-t3aw-p1.0", "original-mstd0.5", "v0", "v0r-mstd1", "3a"),
    ],
)
def test_draws_as_timm(spec: str, same_distribution: Callable[[object, object], bool]) -> None:
    theirs, ours = sample_timm(spec), sample_ours(spec)
    chains = [Counter[object](tuple(op for op, _ in image) for image in sample) for sample in (theirs, ours)]
    numbers = [Counter[object](len(image) for image in sample) for sample in (theirs, ours)]
    for one, other in (chains, numbers):
        for key in one | other:
            # Both counts are Poisson's: 5 standard deviations of their difference.
            assert abs(one[key] - other[key]) < 5 * np.sqrt(one[key] + other[key] + 1), key
    for op in {op for image in theirs for op, _ in image} - {"GaussianBlurRand"}:
        args = [np.array([arg for image in sample for name, arg in image if name == op]) for sample in (theirs, ours)]
        if op == "Desaturate":
            args[0] = 1 - args[0]
        assert same_distribution(*args), op


def test_rand_m9_in_numbers() -> None:
    """15 operations, 2 per image with probability 1/2; level normal(9, 0.5) below 10; both signs alike."""
    draws = [draw for image in sample_ours("rand-m9-mstd0.5-inc1") for draw in image]
    assert len(draws) / SAMPLES == pytest.approx(1.0, abs=0.04)
    counts = Counter(op for op, _ in draws)
    assert len(counts) == 15
    assert min(counts.values()) > 300
    assert max(counts.values()) < 500
    degrees = np.array([arg for op, arg in draws if op == "Rotate"])
    # The mean of |normal(27, 1.5)| cut at 30, two standard deviations above: 27 - 0.013.
    assert np.abs(degrees).mean() == pytest.approx(26.99, abs=0.3)
    assert np.abs(degrees).std() == pytest.approx(1.47, abs=0.2)
    assert np.abs(degrees).max() == pytest.approx(30.0)
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_interpolation_is_drawn_evenly_or_fixed() -> None:
    policy, indices = parse_policy("rand-m9"), np.arange(SAMPLES)
    shares = {"random": (0, 0.5, 0.5), "nearest": (1, 0, 0), "bilinear": (0, 1, 0), "bicubic": (0, 0, 1)}
    for name, expected in shares.items():
        layers = list(draw_layers(policy, name, (32, 32), seed=0, epoch=0, indices=indices))  # type: ignore[arg-type]
        assert len(layers) == 2
        for layer in layers:
            counts = np.bincount(layer.resample, minlength=len(RESAMPLES)) / SAMPLES
            assert counts == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("spec", ["rand-m9-mstd0.5-inc1", "trivialaugmentwide"])
def test_draws_depend_on_seed_epoch_and_index_only(spec: str) -> None:
    policy = parse_policy(spec)
    assert not isinstance(policy, AugMix)

    def args(seed: int, epoch: int, indices: list[int]) -> np.ndarray:
        layers = draw_layers(policy, "random", (32, 32), seed=seed, epoch=epoch, indices=np.array(indices))
        return np.stack([[layer.ops, layer.args, layer.resample] for layer in layers])

    whole = args(3, 5, list(range(200)))
    np.testing.assert_array_equal(args(3, 5, [150, 7, 7]), whole[:, :, [150, 7, 7]])
    assert not np.array_equal(args(4, 5, list(range(200))), whole)
    assert not np.array_equal(args(3, 6, list(range(200))), whole)


# Shifts by no simple fraction of a pixel: at a fifth, every fifth sum is whole, and which way it is cut is chance.
ONE_LAYER = {
    "AutoContrast": None,
    "Equalize": None,
    "Invert": None,
    "Rotate": 20.0,
    "ShearX": 0.27,
    "ShearY": -0.19,
    "TranslateXRel": 0.3137,
    "TranslateYRel": -0.2137,
    "Posterize": 3,
    "Solarize": 100,
    "SolarizeAdd": 60,
    "Color": 0.3,
    "Contrast": 1.8,
    "Brightness": 1.2,
    "Sharpness": 0.1,
    "GaussianBlur": 1.7,
}


def test_a_layer_does_to_each_image_its_own_operation(photos: list[Image.Image]) -> None:
    """Each operation by two interpolations in one batch, and images without one between them."""
    ops = [name for op in ONE_LAYER for name in (op, None, op)]
    rows = np.arange(len(ops))
    images = [photos[row % len(photos)] for row in rows]
    batch = torch.stack([torch.from_numpy(np.array(image)).float().permute(2, 0, 1) for image in images])
    numbers = np.array([OPS.index(op) if op else NO_OP for op in ops])
    args = np.array([ONE_LAYER[op] or 0.0 if op else 0.0 for op in ops])
    apply_layer(batch, Layer(numbers, args, np.where(rows % 3 == 0, 2, 1)), torch.tensor([124.0, 116.0, 104.0]))
    for row, (op, image) in enumerate(zip(ops, images, strict=True)):
        theirs = image
        if op:
            resample = Image.Resampling.BICUBIC if row % 3 == 0 else Image.Resampling.BILINEAR
            options = {"resample": resample, "fillcolor": (124, 116, 104)} if op in GEOMETRIC else {}
            argument = () if ONE_LAYER[op] is None else (ONE_LAYER[op],)
            theirs = timm_policies.NAME_TO_OP[op](image, *argument, **options)
        difference = np.abs(batch[row].permute(1, 2, 0).numpy() - np.array(theirs))
        assert difference.max() <= (1 if op in GEOMETRIC else 0), op
        assert (difference > 0).mean() < 0.01, op


@pytest.mark.parametrize("spec", ["rand-m9-mstd0.5-inc1", "rand-m9-n3", "original", "3a"])
def test_the_chain_keeps_whole_levels(spec: str, photos: list[Image.Image]) -> None:
    batch = torch.stack([torch.from_numpy(np.array(image)).float().permute(2, 0, 1) for image in photos])
    before = batch.clone()
    after = auto_augment(
        batch, parse_policy(spec), IMAGENET_MEAN, "random", seed=0, epoch=0, indices=np.arange(len(batch))
    )
    assert torch.equal(after, after.round())
    assert after.min() >= 0
    assert after.max() <= 255
    assert not torch.equal(after, before)


def test_fill_is_the_rounded_mean_colour() -> None:
    assert fill_levels(parse_policy("rand-m9"), IMAGENET_MEAN).tolist() == [124, 116, 104]
    assert fill_levels(parse_policy("rand-m9"), (1.0,)).tolist() == [255]
