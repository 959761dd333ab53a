"""What the loader does to crops on a CPU: timm's and torchvision's results to the bit, and the batched form's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_ops
from torchvision.transforms import InterpolationMode, autoaugment

from convmixer.augment.auto_augment import auto_augment
from convmixer.augment.draws import NO_OP, RESAMPLES, draw_layers
from convmixer.augment.geometric import GEOMETRIC
from convmixer.augment.host import HostAugmentation
from convmixer.augment.photometric import PHOTOMETRIC
from convmixer.augment.pillow_operations import IN_PILLOW, TABLES, through_table, transformed
from convmixer.augment.pipeline import Augmentation
from convmixer.config.augment import AugmentOptions
from convmixer.data.preprocessing import IMAGENET_MEAN, Preprocessing
from convmixer.policies.spec import AugMix, parse_policy
from convmixer.policies.timm_magnitudes import LEVELLED, OPS, arguments

FILL = (124, 116, 104)
LEVELS = (0.0, 0.4, 3.3, 5.0, 6.9, 9.0, 10.0)
WITHOUT_ARGUMENT = ("AutoContrast", "Equalize", "Invert")
WHOLE = ("Posterize", "PosterizeIncreasing", "PosterizeOriginal", "Solarize", "SolarizeIncreasing", "SolarizeAdd")


def ours(op: str, image: Image.Image, argument: float) -> np.ndarray:
    if op in TABLES:
        return through_table(np.array(image), op, argument)
    return np.array(IN_PILLOW[op](image, argument))


def by_timm(op: str, image: Image.Image, argument: float) -> np.ndarray:
    """timm's operation at our argument; its blurs and Desaturate take theirs in other units."""
    if op.startswith("GaussianBlur"):
        return np.array(timm_ops.gaussian_blur(image, argument))
    if op == "Desaturate":
        return np.array(timm_ops.desaturate(image, 1 - argument))
    if op in WITHOUT_ARGUMENT:
        return np.array(timm_ops.NAME_TO_OP[op](image))
    return np.array(timm_ops.NAME_TO_OP[op](image, int(argument) if op in WHOLE else argument))


def test_every_operation_is_there_once() -> None:
    assert not set(TABLES) & set(IN_PILLOW)
    assert set(TABLES) | set(IN_PILLOW) == set(PHOTOMETRIC)
    assert set(PHOTOMETRIC) | set(GEOMETRIC) == set(OPS)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("op", PHOTOMETRIC)
def test_photometric_operations_equal_timms(op: str, mode: str, pictures: list[Image.Image]) -> None:
    for image in (picture.convert(mode) for picture in pictures):
        for level in LEVELS:
            for sign in (-1.0, 1.0):
                argument = float(arguments(op, np.array([level]), np.array([sign]), np.array([0.6]))[0])
                np.testing.assert_array_equal(ours(op, image, argument), by_timm(op, image, argument), str(argument))


def test_no_bits_leave_a_black_image() -> None:
    levels = np.arange(256, dtype=np.uint8)
    for bits in (0.0, -2.0):
        assert through_table(levels, "Posterize", bits).max() == 0
    np.testing.assert_array_equal(through_table(levels, "Posterize", 8.0), levels)


@pytest.mark.parametrize("op", [op for op in GEOMETRIC if op in LEVELLED])
@pytest.mark.parametrize("resample", RESAMPLES)
def test_geometric_operations_equal_timms(op: str, resample: str, pictures: list[Image.Image]) -> None:
    for image in pictures:
        for level in LEVELS:
            for sign in (-1.0, 1.0):
                argument = float(arguments(op, np.array([level]), np.array([sign]), np.zeros(1))[0])
                theirs = timm_ops.NAME_TO_OP[op](
                    image, argument, resample=Image.Resampling[resample.upper()], fillcolor=FILL
                )
                found = transformed(image, op, argument, resample, FILL)
                np.testing.assert_array_equal(np.array(found), np.array(theirs))


@pytest.mark.parametrize("resample", [InterpolationMode.NEAREST, InterpolationMode.BILINEAR])
@pytest.mark.parametrize(("op", "axis"), [("TranslateX", 0), ("TranslateY", 1)])
def test_shifts_by_pixels_are_torchvisions(
    op: str, axis: int, resample: InterpolationMode, pictures: list[Image.Image]
) -> None:
    for image in pictures:
        for pixels in (-7.0, 0.0, 3.0):
            theirs = autoaugment._apply_op(image, op, pixels, resample, None)
            found = transformed(image, op, pixels, resample.value, (0, 0, 0))
            np.testing.assert_array_equal(np.array(found), np.array(theirs))


def stacked(photos: list[Image.Image]) -> np.ndarray:
    return np.stack([np.array(photo) for photo in photos])


@pytest.mark.parametrize("spec", ["rand-m9-mstd0.5-inc1", "rand-m9-n3-p1.0", "v0", "3a", "randaugment-n3-m12"])
def test_a_policy_does_timms_operations_in_their_order(spec: str, photos: list[Image.Image]) -> None:
    policy, indices = parse_policy(spec), np.arange(len(photos)) * 7
    augment = HostAugmentation(AugmentOptions(auto_augment=spec, hflip=0.0), Preprocessing(), seed=4)
    found = augment(stacked(photos), indices, epoch=3)
    theirs, size = list(photos), (photos[0].height, photos[0].width)
    fill = (0, 0, 0) if spec.startswith("randaugment") else FILL
    assert not isinstance(policy, AugMix)
    for layer in draw_layers(policy, "random", size, seed=4, epoch=3, indices=indices):
        for row in np.flatnonzero(layer.ops != NO_OP):
            op, argument = OPS[layer.ops[row]], float(layer.args[row])
            if op in GEOMETRIC:
                how = Image.Resampling[RESAMPLES[layer.resample[row]].upper()]
                name = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}.get(op, op)
                if name != op:  # by pixels, the other way round
                    argument = -argument / (size[1] if op == "TranslateX" else size[0])
                theirs[row] = timm_ops.NAME_TO_OP[name](theirs[row], argument, resample=how, fillcolor=fill)
            else:
                theirs[row] = Image.fromarray(by_timm(op, theirs[row], argument))
    np.testing.assert_array_equal(found, stacked(theirs))
    assert (found != stacked(photos)).any()


@pytest.mark.parametrize("spec", ["rand-m9-mstd0.5-inc1", "v0", "augmix-m5-w2", "trivialaugmentwide"])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_batched_form_within_a_level(spec: str, channels: int, photos: list[Image.Image]) -> None:
    pixels = stacked(photos)[..., :channels].copy()
    policy, indices, mean = parse_policy(spec), np.arange(len(pixels)), IMAGENET_MEAN[:channels]
    levels = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float()
    batched = auto_augment(levels, policy, mean, "bilinear", seed=2, epoch=1, indices=indices)
    options = AugmentOptions(auto_augment=spec, hflip=0.0, aa_interpolation="bilinear")
    augment = HostAugmentation(options, Preprocessing(mean=mean, std=mean), seed=2)
    difference = np.abs(augment(pixels, indices, epoch=1) - batched.permute(0, 2, 3, 1).numpy())
    # An operation that comes after a turn, as Equalize, can make more of the turn's one level.
    assert (difference > 1).mean() < 0.01
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("flips", [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_pipeline_is_the_same_where_nothing_is_turned(flips: tuple[float, float], channels: int) -> None:
    """Flips, normalisation and mixing, with the first done on the host or in the batched form."""
    images = np.random.default_rng(0).integers(0, 256, (16, 9, 7, channels), dtype=np.uint8)
    preprocessing = Preprocessing(mean=IMAGENET_MEAN[:channels], std=IMAGENET_MEAN[:channels])
    options = AugmentOptions(hflip=flips[0], vflip=flips[1], re_prob=0.5, mixup=0.4, cutmix=0.4)
    labels, indices = torch.arange(16) % 5, np.arange(16) + 40
    batched = Augmentation(options, preprocessing, 5, seed=1)
    rest = Augmentation(options, preprocessing, 5, seed=1, per_image=False)
    whole = batched(torch.from_numpy(images.copy()), labels, indices, 2, 9)
    flipped = torch.from_numpy(HostAugmentation(options, preprocessing, seed=1)(images, indices, 2))
    for one, other in zip(whole, rest(flipped, labels, indices, 2, 9), strict=True):
        assert torch.equal(one, other)


def test_an_image_is_augmented_alike_in_any_batch(photos: list[Image.Image]) -> None:
    options = AugmentOptions(auto_augment="rand-m9-mstd0.5-inc1")
    augment, pixels, indices = (
        HostAugmentation(options, Preprocessing(), seed=0),
        stacked(photos),
        np.arange(len(photos)),
    )
    whole = augment(pixels.copy(), indices, 5)
    for row in range(len(photos)):
        np.testing.assert_array_equal(augment(pixels[row : row + 1].copy(), indices[row : row + 1], 5)[0], whole[row])
    assert (augment(pixels.copy(), indices, 6) != whole).any()
