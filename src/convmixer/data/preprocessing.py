"""How an image becomes the network's input: one record, kept with the weights, used by every backend."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Bounds of a record that comes with weights; those of the options are within.
_SIZE_MAX, _CROP_MIN = 4096, 0.01
_INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation: shorter side to floor(size / crop_pct), centre crop of size x size, then (x / 255 - mean) / std.

    `mean` and `std` have one value per channel; one channel means that images are read as grey. `exif`: turn the image
    as its EXIF orientation says.
    """

    size: int = 224
    crop_pct: float = 0.96
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    exif: bool = False

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def resize_size(self) -> int:
        """Length that the shorter side is resized to, in pixels."""
        return math.floor(self.size / self.crop_pct)

    @property
    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """`mean` and `std` in levels of 0 to 255, float32 [channels, 1, 1] each."""
        mean, std = (np.array(values, np.float32)[:, None, None] * 255 for values in (self.mean, self.std))
        return mean, std

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """(x / 255 - mean) / std: uint8 [N, H, W, channels] -> float32 [N, channels, H, W], bit for bit as on torch."""
        mean, std = self.levels
        out = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
        out -= mean
        out /= std
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocessing:
        """The record that `to_dict` wrote. Raises TypeError or ValueError for one that it cannot have written."""
        if not isinstance(record, dict):
            raise TypeError("a record is a mapping")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        made = cls(**values)
        made._check()
        return made

    def _check(self) -> None:
        """Refuse what a foreign file may say, but no image could be brought to."""
        numbers = (self.crop_pct, *self.mean, *self.std)
        whole = isinstance(self.size, int) and isinstance(self.exif, bool)
        if not whole or not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise TypeError("a value is not of its type")
        if not (
            1 <= self.size <= _SIZE_MAX and _CROP_MIN <= self.crop_pct <= 1 and len(self.mean) == len(self.std) > 0
        ):
            raise ValueError("size, crop_pct, mean or std is out of bounds")
        if self.interpolation not in _INTERPOLATIONS or min(self.std) <= 0:
            raise ValueError("interpolation or std has an impossible value")
