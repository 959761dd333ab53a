"""torchvision's policies: magnitudes, operations and whole chains against torchvision itself on Pillow images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment

from convmixer.augment.auto_augment import apply_layer, auto_augment
from convmixer.augment.draws import NO_OP, RESAMPLES, Layer, draw_chain, draw_layers, draw_mixture
from convmixer.data.preprocessing import IMAGENET_MEAN
from convmixer.policies.spec import AugMix, BinnedAugment, parse_policy
from convmixer.policies.timm_magnitudes import OPS
from convmixer.policies.torchvision_magnitudes import AUGMIX, ENHANCEMENTS, RAND_AUGMENT, SIGNED, TRIVIAL_AUGMENT_WIDE

SAMPLES = 6000
MODES = dict(
    zip(RESAMPLES, (InterpolationMode.NEAREST, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC), strict=True)
)


def to_batch(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).float().permute(2, 0, 1)[None]


def theirs_at(op: str, argument: float) -> float:
    """torchvision's magnitude for our argument: it adds the 1 of a factor itself."""
    return argument - 1.0 if op in ENHANCEMENTS else argument


@pytest.mark.parametrize("size", [(32, 32), (224, 192)])
@pytest.mark.parametrize("bins", [31, 10, 8])
def test_magnitudes_are_torchvisions(bins: int, size: tuple[int, int]) -> None:
    spaces = (
        (RAND_AUGMENT, autoaugment.RandAugment()._augmentation_space(bins, size)),
        (TRIVIAL_AUGMENT_WIDE, autoaugment.TrivialAugmentWide()._augmentation_space(bins)),
        (AUGMIX, autoaugment.AugMix()._augmentation_space(bins, size)),
    )
    for ours, theirs in spaces:
        assert set(ours.ops) == set(theirs)
        for op, (magnitudes, signed) in theirs.items():
            expected = magnitudes.double().numpy() if magnitudes.ndim else np.zeros(bins)
            found = ours.arguments(op, bins, *size)
            if op.startswith("Translate"):
                np.testing.assert_array_equal(found, expected.astype(int), err_msg=op)  # cut as in its _apply_op
            else:
                np.testing.assert_allclose(found, expected, rtol=3e-7, err_msg=op)
            assert (op in SIGNED) == signed


def test_the_authors_randaugment_in_numbers() -> None:
    """num_ops 2, magnitude 12 of 0 to 30, on 32 pixels: written out by hand."""
    policy = parse_policy("randaugment-n2-m12")
    assert isinstance(policy, BinnedAugment)
    layers = list(draw_layers(policy, "nearest", (32, 32), seed=0, epoch=0, indices=np.arange(SAMPLES)))
    assert len(layers) == 2
    expected = {
        "Rotate": {12.0, -12.0},
        "ShearX": {0.12, -0.12},
        "ShearY": {0.12, -0.12},
        "TranslateX": {5.0, -5.0},  # 150 / 331 * 32 * 12 / 30 = 5.8, cut
        "TranslateY": {5.0, -5.0},
        **{op: {1.36, 0.64} for op in ENHANCEMENTS},
        "Posterize": {6.0},
        "Solarize": {153.0},
        "AutoContrast": {0.0},
        "Equalize": {0.0},
    }
    for layer in layers:
        found = {
            OPS[op]: set(np.round(layer.args[layer.ops == op], 6)) for op in np.unique(layer.ops[layer.ops != NO_OP])
        }
        assert found == expected
        counts = Counter(layer.ops.tolist())  # NO_OP is Identity, one of the fourteen
        assert len(counts) == 14
        for op, count in counts.items():
            assert abs(count - SAMPLES / 14) < 5 * np.sqrt(SAMPLES / 14), op
        signs = layer.args[layer.ops == OPS.index("Rotate")] > 0
        assert signs.mean() == pytest.approx(0.5, abs=0.13)


def test_trivial_augment_takes_every_magnitude() -> None:
    policy = parse_policy("trivialaugmentwide")
    assert isinstance(policy, BinnedAugment)
    (layer,) = draw_layers(policy, "nearest", (64, 64), seed=0, epoch=0, indices=np.arange(10 * SAMPLES))
    degrees = np.round(layer.args[layer.ops == OPS.index("Rotate")], 4)
    # 0 to 135 in 31 steps of 4.5, both ways.
    assert set(np.abs(degrees)) == set(np.round(np.arange(31) * 4.5, 4))
    assert set(layer.args[layer.ops == OPS.index("Posterize")]) == {8, 7, 6, 5, 4, 3, 2}


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("space", [RAND_AUGMENT, TRIVIAL_AUGMENT_WIDE], ids=["rand", "trivial"])
def test_operations_are_torchvisions(space: object, resample: str, pictures: list[Image.Image]) -> None:
    assert isinstance(space, type(RAND_AUGMENT))
    bins = np.arange(31) if resample == "nearest" else np.array([5, 17, 30])
    geometric = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
    for op in space.ops[1:] if resample == "nearest" else geometric:
        differences = []
        for image in pictures[:5]:
            values = space.arguments(op, 31, image.height, image.width)[bins]
            values = np.concatenate([values, -values]) if op in SIGNED else values
            for value in values + 1.0 if op in ENHANCEMENTS else values:
                batch = to_batch(image)
                layer = Layer(np.array([OPS.index(op)]), np.array([value]), np.array([RESAMPLES.index(resample)]))
                apply_layer(batch, layer, torch.zeros(3))
                theirs = autoaugment._apply_op(image, op, theirs_at(op, value), MODES[resample], None)
                differences.append(np.abs(batch[0].permute(1, 2, 0).numpy() - np.array(theirs)).ravel())
        difference = np.concatenate(differences)
        if resample == "nearest":
            assert difference.max() == 0, op
        else:
            assert difference.max() <= 1, op
            assert (difference > 0).mean() < 0.02, op


@pytest.mark.parametrize("spec", ["randaugment-n3-m12", "trivialaugmentwide"])
def test_a_chain_is_torchvisions_bit_for_bit(spec: str, photos: list[Image.Image]) -> None:
    policy, indices = parse_policy(spec), np.arange(len(photos))
    assert isinstance(policy, BinnedAugment)
    batch = torch.cat([to_batch(image) for image in photos])
    auto_augment(batch, policy, IMAGENET_MEAN, "nearest", seed=5, epoch=2, indices=indices)
    size = (photos[0].height, photos[0].width)
    theirs = list(photos)
    for layer in draw_layers(policy, "nearest", size, seed=5, epoch=2, indices=indices):
        for row in np.flatnonzero(layer.ops != NO_OP):
            op = OPS[layer.ops[row]]
            theirs[row] = autoaugment._apply_op(
                theirs[row], op, theirs_at(op, float(layer.args[row])), InterpolationMode.NEAREST, None
            )
    for number, image in enumerate(theirs):
        np.testing.assert_array_equal(batch[number].permute(1, 2, 0).numpy(), np.array(image))


def test_augmix_mixes_its_chains_as_torchvision(photos: list[Image.Image]) -> None:
    """The same draws, with torchvision's operations on Pillow images, mixed by the definition in float64."""
    policy, indices = parse_policy("augmix-m5-w2"), np.arange(len(photos))
    assert isinstance(policy, AugMix)
    batch = torch.cat([to_batch(image) for image in photos])
    auto_augment(batch, policy, IMAGENET_MEAN, "nearest", seed=1, epoch=0, indices=indices)
    size, of = (photos[0].height, photos[0].width), {"seed": 1, "epoch": 0, "indices": indices}
    weights = draw_mixture(policy, **of).astype(float)  # type: ignore[arg-type]
    mixed = [np.array(image) * weights[row, 0] for row, image in enumerate(photos)]
    for chain in range(2):
        copies = list(photos)
        for layer in draw_chain(policy, chain, "nearest", size, **of):  # type: ignore[arg-type]
            for row in np.flatnonzero(layer.ops != NO_OP):
                op, mode = OPS[layer.ops[row]], InterpolationMode.NEAREST
                argument = theirs_at(op, float(layer.args[row]))
                copies[row] = autoaugment._apply_op(copies[row], op, argument, mode, None)
        for number, copy in enumerate(copies):
            mixed[number] = mixed[number] + np.array(copy) * weights[number, 1 + chain]
    for number, mix in enumerate(mixed):
        # The weights add up to 1 in single precision only: what is unchanged in all copies must stay as it is.
        difference = batch[number].permute(1, 2, 0).numpy() - np.floor(mix + 2**-11)
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.05


def test_augmix_in_numbers() -> None:
    policy, indices = parse_policy("augmix"), np.arange(SAMPLES)
    assert isinstance(policy, AugMix)
    weights = draw_mixture(policy, seed=0, epoch=0, indices=indices)
    assert weights.shape == (SAMPLES, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    # Beta(1, 1) for the image, the rest in thirds: uniform, mean 1/2 and 1/6.
    np.testing.assert_allclose(weights.mean(axis=0), [0.5, 1 / 6, 1 / 6, 1 / 6], atol=0.015)
    assert weights[:, 0].std() == pytest.approx(12**-0.5, abs=0.01)
    layers = list(draw_chain(policy, 1, "bilinear", (32, 32), seed=0, epoch=0, indices=indices))
    # One to three operations per chain, all alike.
    done = np.sum([layer.ops != NO_OP for layer in layers], axis=0)
    assert set(done) == {1, 2, 3}
    assert done.mean() == pytest.approx(2, abs=0.05)
    rotate = np.concatenate([layer.args[layer.ops == OPS.index("Rotate")] for layer in layers])
    # Severity 3 of 10 bins: 0, 1/9 and 2/9 of 30 degrees.
    assert set(np.round(np.abs(rotate), 3)) == {0.0, 3.333, 6.667}
    assert "Color" in policy.chain.ops
    without = parse_policy("augmix-all0")
    assert isinstance(without, AugMix)
    assert set(without.chain.ops).isdisjoint(ENHANCEMENTS)
