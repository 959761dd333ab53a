"""Pixels to the network's input in torch, for training and inference; `Preprocessing.normalise` does it in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from convmixer.data.preprocessing import Preprocessing
from convmixer.devices import to_device


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x / 255 - mean) / std: uint8 images (b, h, w, c) to float32 (b, c, h, w) in channels_last memory."""
    return normalise_levels(images.permute(0, 3, 1, 2).float(), preprocessing)


def normalise_levels(levels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The same from float32 levels (b, c, h, w), in place."""
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocessing.mean, preprocessing.std))
    pixels = levels.permute(0, 2, 3, 1)
    if levels.device.type == "cpu" and pixels.is_contiguous():
        # Row by row with a value for each of a row's numbers: over three channels a CPU has no vectors, and takes
        # three times as long for the same bits.
        rows = pixels.view(-1, pixels.shape[2] * pixels.shape[3])
        rows.sub_(torch.from_numpy(np.tile(mean, pixels.shape[2]))).div_(
            torch.from_numpy(np.tile(std, pixels.shape[2]))
        )
        return levels
    shape = (len(mean), 1, 1)
    return levels.sub_(to_device(mean.reshape(shape), levels.device)).div_(to_device(std.reshape(shape), levels.device))
