"""Which part of an image is seen, and at what size: Pillow images in, uint8 arrays [size, size, C] out.

Evaluation follows torchvision's Resize and CenterCrop, training timm's RandomResizedCropAndInterpolation; both are
pixel for pixel what those return. Pillow's resize is antialiased.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from convmixer.data.limits import MAX_PIXELS, BadImage
from convmixer.data.preprocessing import Preprocessing

RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_RANDOM = ("bilinear", "bicubic")

_ATTEMPTS = 10
# Uniform numbers that one training crop uses: four per attempt, and one for the interpolation.
CROP_DRAWS = 4 * _ATTEMPTS + 1

RATIO = (3 / 4, 4 / 3)


def eval_crop(image: Image.Image, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Shorter side to floor(size / crop_pct), then the centre: uint8 [size, size, C].

    Raises BadImage for an image so long that it would have more pixels at that size than `max_pixels` (of a file), or
    than MAX_PIXELS where that is more.
    """
    size, short = preprocessing.size, preprocessing.resize_size
    width, height = image.size
    if width <= height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    if (width, height) != image.size:
        if width * height > max(max_pixels, MAX_PIXELS):
            raise BadImage(f"{image.width} x {image.height} pixels, too long to be resized to {width} x {height}")
        image = image.resize((width, height), RESAMPLE[preprocessing.interpolation])
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _pixels(image.crop((left, top, left + size, top + size)))


def random_crop_box(
    width: int,
    height: int,
    uniforms: np.ndarray,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = RATIO,
) -> tuple[int, int, int, int]:
    """A random box (left, top, width, height) within an image of `width` x `height` pixels.

    `scale`: bounds of its fraction of the area, `ratio`: of width to height. Ten attempts, each by four of the
    `uniforms` [>= 40], then the largest centred box whose ratio is allowed.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for u_area, u_ratio, u_top, u_left in uniforms[: 4 * _ATTEMPTS].reshape(_ATTEMPTS, 4):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * u_area)
        aspect = math.exp(low + (high - low) * u_ratio)
        w = max(1, round(math.sqrt(area * aspect)))
        h = max(1, round(math.sqrt(area / aspect)))
        if w <= width and h <= height:
            return int(u_left * (width - w + 1)), int(u_top * (height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h


def crop_interpolation(interpolation: str, uniforms: np.ndarray) -> str:
    """A key of RESAMPLE: `interpolation` itself, or of `random` bilinear or bicubic, by the last of CROP_DRAWS."""
    return _RANDOM[int(len(_RANDOM) * uniforms[CROP_DRAWS - 1])] if interpolation == "random" else interpolation


def reduction_of(box: tuple[int, int, int, int], size: int) -> int:
    """By how much, 8, 4, 2 or 1, the sides of an image may be divided before `box` of it is resized to `size`.

    Enough pixels are left that the resize still makes the box smaller, not larger.
    """
    return next((factor for factor in (8, 4, 2) if min(box[2:]) >= factor * size), 1)


def cut(pixels: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """That `box` of an image, copied from its pixels [H, W, C]; of an image that came smaller than its `size` (width,
    height), the same part to the nearest pixel."""
    left, top, width, height = box
    if pixels.shape[1::-1] != size:
        x, y = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
        width, height = max(1, round(width * x)), max(1, round(height * y))
        left = min(round(left * x), pixels.shape[1] - width)
        top = min(round(top * y), pixels.shape[0] - height)
    return np.array(pixels[top : top + height, left : left + width])


def train_crop(
    image: Image.Image,
    size: int,
    uniforms: np.ndarray,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = RATIO,
    interpolation: str = "random",
) -> np.ndarray:
    """A random box of the image, resized to uint8 [size, size, C].

    `uniforms`: CROP_DRAWS numbers in [0, 1). `interpolation`: a key of RESAMPLE, or `random`: bilinear or bicubic.
    """
    left, top, width, height = random_crop_box(image.width, image.height, uniforms, scale, ratio)
    box = image.crop((left, top, left + width, top + height))
    return _pixels(box.resize((size, size), RESAMPLE[crop_interpolation(interpolation, uniforms)]))


def _pixels(image: Image.Image) -> np.ndarray:
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
