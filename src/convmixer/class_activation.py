"""Pictures of class-activation maps: what spoke for an answer, laid over the crop that the network saw; NumPy."""

from __future__ import annotations

import numpy as np
from PIL import Image

_HOT = np.array([255.0, 96.0, 0.0])  # colour of what speaks for the class
_OPACITY = 0.65


def overlaid(crop: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """A crop, uint8 [H, W, C], with colour where the map [h, w] is above its mean: uint8 [H, W, 3]."""
    size = (crop.shape[1], crop.shape[0])
    above = np.maximum(map_ - map_.mean(), 0.0)
    strength = above / max(float(above.max()), 1e-9)
    grown = Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    share = (np.clip(np.asarray(grown), 0, 1) * _OPACITY)[..., None]
    grey = np.repeat(crop.astype(np.float64).mean(axis=2, keepdims=True), 3, axis=2)
    return np.asarray((grey * (1 - share) + _HOT * share).round(), dtype=np.uint8)
