"""What stands before a network's head, whatever engine runs it: pooled features, and maps of what spoke for a class."""

from __future__ import annotations

from typing import Protocol

import numpy as np


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
