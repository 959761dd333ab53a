"""What stands before a network's head, whatever engine runs it: pooled features, and maps of what spoke for a class."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from convmixer.metadata import ModelMetadata

# By which the means of maps may differ from the logits, as a fraction of the largest: rounding in fp32, a step of the
# quantisation in int8.
_TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1}


class Inside(Protocol):
    """The inside of a network that pools and then applies a linear head.

    So the head at each position gives exact class-activation maps, whose means over the positions are the logits
    (https://arxiv.org/abs/1512.04150, without an approximation here).
    """

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, size, size, channels] -> pooled features float32 [N, dim], and logits float32 [N, classes]."""
        ...

    def class_maps(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Maps float32 [N, h, w] of `classes`, int64 [N], for uint8 [N, size, size, channels]."""
        ...


def are_maps(whole: np.ndarray, logits: np.ndarray, metadata: ModelMetadata | None) -> bool:
    """Whether the head is linear, and these float32 [h, w, classes] are its maps: then their means are the logits
    [classes]."""
    allowed = _TOLERANCES["fp32" if metadata is None else metadata.precision] * max(float(np.abs(logits).max()), 1.0)
    return bool(np.abs(whole.mean(axis=(0, 1)) - logits).max() <= allowed)
