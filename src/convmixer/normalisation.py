"""Pixels to the network's input in torch, for training and inference; `Preprocessing.normalise` does it in NumPy."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from convmixer.data.preprocessing import Preprocessing
from convmixer.devices import to_device


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x / 255 - mean) / std: uint8 images (b, h, w, c) to float32 (b, c, h, w) in channels_last memory."""
    return normalise_levels(images.permute(0, 3, 1, 2).float(), preprocessing)


def normalise_levels(levels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The same from float32 levels (b, c, h, w), in place."""
    mean, std = (
        np.array(values, np.float32)[:, None, None] * 255 for values in (preprocessing.mean, preprocessing.std)
    )
    return levels.sub_(to_device(mean, levels.device)).div_(to_device(std, levels.device))
