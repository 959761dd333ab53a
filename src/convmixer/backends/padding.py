"""Batches of any size through a network that takes one size only: split, and the last part filled up with zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # ONNX files run without torch
    from torch import Tensor


def in_batches(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """logits [N, num_classes] of images [N, ...] by a `network` for `size` images.

    `network` may write each answer into the memory of the one before.
    """
    import torch

    def answer(part: Tensor) -> Tensor:
        missing = size - len(part)
        filled = torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) if missing else part
        return network(filled)[: len(part)].clone()

    return torch.cat([answer(part) for part in images.split(size)])


def arrays_in_batches(network: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, size: int) -> np.ndarray:
    """Answers [N, ...] to inputs [N, ...] by a `network` for `size` of them."""
    firsts = range(0, max(len(inputs), 1), size)
    parts = [network(filled_up(inputs[first : first + size], size)) for first in firsts]
    return np.concatenate(parts)[: len(inputs)]


def filled_up(part: np.ndarray, size: int) -> np.ndarray:
    """`part` [n, ...] with zeros behind it, up to `size`."""
    missing = size - len(part)
    return np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
