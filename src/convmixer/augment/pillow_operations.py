"""The operations of the policies on one image, by Pillow itself or a table: what `photometric` and `geometric` do to
batches.

Photometric ones are equal to those to the bit, geometric ones within one level. Each takes its argument in the units of
`timm_magnitudes.arguments`; images are in mode L or RGB.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

_LEVELS = np.arange(256, dtype=np.float32)

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def _posterized(bits: float) -> np.ndarray:
    shift = int(8 - min(bits, 8))
    return (np.arange(256) >> shift) << shift


def _solarized(threshold: float) -> np.ndarray:
    return np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS)


def _raised(addition: float) -> np.ndarray:
    return np.where(_LEVELS < 128, np.minimum(_LEVELS + np.float32(addition), 255), _LEVELS)


def _brightened(factor: float) -> np.ndarray:
    return np.clip(_LEVELS * np.float32(factor), 0, 255)


# What depends on a value alone: argument -> the new levels (256,) of the levels 0 to 255, not yet cut to integers.
TABLES: dict[str, Callable[[float], np.ndarray]] = {
    "Invert": lambda _: 255 - _LEVELS,
    "Posterize": _posterized,
    "PosterizeIncreasing": _posterized,
    "PosterizeOriginal": _posterized,
    "Solarize": _solarized,
    "SolarizeIncreasing": _solarized,
    "SolarizeAdd": _raised,
    "Brightness": _brightened,
    "BrightnessIncreasing": _brightened,
}


def through_table(pixels: np.ndarray, op: str, argument: float) -> np.ndarray:
    """New pixels of an operation of TABLES on uint8 pixels, contiguous; half the time of Pillow's `point`."""
    table = TABLES[op](argument).astype(np.uint8).tobytes()
    return np.frombuffer(pixels.tobytes().translate(table), dtype=np.uint8).reshape(pixels.shape)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _color(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _sharpness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(factor)


def _blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


IN_PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Color": _color,
    "ColorIncreasing": _color,
    "Desaturate": _color,
    "Contrast": _contrast,
    "ContrastIncreasing": _contrast,
    "Sharpness": _sharpness,
    "SharpnessIncreasing": _sharpness,
    "GaussianBlur": _blur,
    "GaussianBlurRand": _blur,
}

# (a, b, c, d, e, f) of Pillow's affine transform: output (x, y) shows the source at (ax + by + c, dx + ey + f).
_AFFINE: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "ShearX": lambda factor, width, height: (1, factor, 0, 0, 1, 0),
    "ShearY": lambda factor, width, height: (1, 0, 0, factor, 1, 0),
    "TranslateXRel": lambda share, width, height: (1, 0, share * width, 0, 1, 0),
    "TranslateYRel": lambda share, width, height: (1, 0, 0, 0, 1, share * height),
    "TranslateX": lambda pixels, width, height: (1, 0, -pixels, 0, 1, 0),
    "TranslateY": lambda pixels, width, height: (1, 0, 0, 0, 1, -pixels),
}


def transformed(image: Image.Image, op: str, argument: float, resample: str, fill: tuple[int, ...]) -> Image.Image:
    """The geometric operation `op`; `fill`: levels of what was outside, `resample`: a key of RESAMPLING."""
    how, colour = RESAMPLING[resample], fill if len(fill) > 1 else fill[0]
    if op == "Rotate":
        return image.rotate(argument, resample=how, fillcolor=colour)
    matrix = _AFFINE[op](argument, *image.size)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=how, fillcolor=colour)
