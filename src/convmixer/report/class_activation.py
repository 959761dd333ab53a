"""Exact class-activation maps: the network pools and then applies a linear head, so that the map of a class is the head
at each position, and its mean is the logit (https://arxiv.org/abs/1512.04150, without an approximation here)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.normalisation import normalise

_HOT = np.array([255.0, 96.0, 0.0])  # colour of what speaks for the class
_OPACITY = 0.65


@torch.no_grad()
def class_maps(model: ConvMixer, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Maps [N, h, w] of `classes` [N] for normalised images [N, C, H, W]; their means over h and w are the logits."""
    maps = model.feature_maps(images)
    weight, bias = model.head.weight[classes], model.head.bias[classes]
    return torch.einsum("nd,ndhw->nhw", weight, maps) + bias[:, None, None]


def maps_of_crops(model: ConvMixer, preprocessing: Preprocessing, crops: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Maps float32 [N, h, w] of crops uint8 [N, size, size, C], image by image, which takes little memory."""
    found = []
    for crop, label in zip(crops, classes.tolist(), strict=True):
        image = normalise(torch.from_numpy(crop[None]), preprocessing)
        found.append(class_maps(model, image, torch.tensor([label]))[0].float().numpy())
    return np.stack(found)


def overlaid(crop: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """A crop, uint8 [H, W, C], with colour where the map [h, w] is above its mean: uint8 [H, W, 3]."""
    size = (crop.shape[1], crop.shape[0])
    above = np.maximum(map_ - map_.mean(), 0.0)
    strength = above / max(float(above.max()), 1e-9)
    grown = Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    share = (np.clip(np.asarray(grown), 0, 1) * _OPACITY)[..., None]
    grey = np.repeat(crop.astype(np.float64).mean(axis=2, keepdims=True), 3, axis=2)
    return np.asarray((grey * (1 - share) + _HOT * share).round(), dtype=np.uint8)
