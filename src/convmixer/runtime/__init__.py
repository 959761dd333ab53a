"""What runs a network: one protocol, uint8 images -> logits, whatever engine stands behind it."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Runtime(Protocol):
    """Runs a network on cropped images; evaluation and prediction know nothing else of it."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        ...
