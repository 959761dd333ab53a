"""Operations on levels against timm's functions on Pillow images: equal, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_ops

from convmixer.augment.photometric import PHOTOMETRIC
from convmixer.policies.timm_magnitudes import arguments

LEVELS = (0.0, 0.4, 3.3, 5.0, 6.9, 9.0, 10.0)
WITHOUT_ARGUMENT = ("AutoContrast", "Equalize", "Invert")
WHOLE = ("Posterize", "PosterizeIncreasing", "PosterizeOriginal", "Solarize", "SolarizeIncreasing", "SolarizeAdd")


def to_batch(image: Image.Image) -> torch.Tensor:
    levels = torch.from_numpy(np.array(image)).float()
    return levels.reshape(1, image.height, image.width, -1).permute(0, 3, 1, 2)


def by_timm(op: str, image: Image.Image, argument: float) -> np.ndarray:
    """timm's operation at our argument; its blurs and Desaturate take theirs in other units."""
    if op.startswith("GaussianBlur"):
        return np.array(timm_ops.gaussian_blur(image, argument))
    if op == "Desaturate":
        return np.array(timm_ops.desaturate(image, 1 - argument))
    function = timm_ops.NAME_TO_OP[op]
    if op in WITHOUT_ARGUMENT:
        return np.array(function(image))
    return np.array(function(image, int(argument) if op in WHOLE else argument))


@pytest.mark.parametrize("op", PHOTOMETRIC)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_equals_timm(op: str, sign: float, pictures: list[Image.Image]) -> None:
    for image in pictures:
        for level in LEVELS:
            argument = float(arguments(op, np.array([level]), np.array([sign]), np.array([0.6]))[0])
            ours = PHOTOMETRIC[op](to_batch(image), torch.tensor([argument], dtype=torch.float32))
            np.testing.assert_array_equal(
                ours[0].permute(1, 2, 0).numpy(), by_timm(op, image, argument), err_msg=f"{image.size} {argument}"
            )


@pytest.mark.parametrize("op", PHOTOMETRIC)
def test_grey_images_equal_timm(op: str, pictures: list[Image.Image]) -> None:
    image = pictures[0].convert("L")
    argument = float(arguments(op, np.array([4.0]), np.array([1.0]), np.array([0.6]))[0])
    ours = PHOTOMETRIC[op](to_batch(image), torch.tensor([argument], dtype=torch.float32))
    np.testing.assert_array_equal(ours[0, 0].numpy(), by_timm(op, image, argument))


@pytest.mark.parametrize("op", PHOTOMETRIC)
def test_each_image_of_a_batch_has_its_own_argument(op: str, photos: list[Image.Image]) -> None:
    batch = torch.cat([to_batch(image) for image in photos])
    levels = np.linspace(0, 10, len(batch))
    values = arguments(op, levels, np.ones_like(levels), np.full_like(levels, 0.5)).astype(np.float32)
    together = PHOTOMETRIC[op](batch.to(memory_format=torch.channels_last), torch.from_numpy(values))
    for row, image in enumerate(photos):
        np.testing.assert_array_equal(
            together[row].permute(1, 2, 0).numpy(), by_timm(op, image, float(values[row])), err_msg=f"row {row}"
        )


def test_no_bits_leave_a_black_image() -> None:
    levels = torch.arange(256.0).reshape(1, 1, 16, 16)
    for bits in (0.0, -2.0):
        assert PHOTOMETRIC["Posterize"](levels, torch.tensor([bits])).abs().max() == 0
    assert torch.equal(PHOTOMETRIC["Posterize"](levels, torch.tensor([8.0])), levels)
