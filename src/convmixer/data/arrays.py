"""A small data set that is held in memory as pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convmixer.data.classes import ClassMap


@dataclass(frozen=True)
class ArraySource:
    """`pixels`: uint8 [n, H, W, C]; `labels`: int64 [n]; `origin`: what names begin with, as `digits/train`."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: ClassMap
    origin: str

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.origin}/{index}"

    def read(self, index: int) -> np.ndarray:
        pixels: np.ndarray = self.pixels[index]
        return pixels
