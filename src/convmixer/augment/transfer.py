"""Small arrays from the host to the device, without waiting for the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` as a tensor on `device`, of the same dtype and shape.

    CUDA stages a copy from ordinary memory before the call returns, so that `array` may be reused; without
    `non_blocking` torch would wait for all work before it.
    """
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
