"""Batches of any size through a network that takes one size only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_batches(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """logits [N, num_classes] of images [N, ...] by a `network` for `size` images: N is split, the last part filled up.

    `network` may write each answer into the memory of the one before.
    """
    return torch.cat([_filled(network, part, size) for part in images.split(size)])


def _filled(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    missing = size - len(images)
    if missing == 0:
        return network(images).clone()
    filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
    return network(filled)[: len(images)].clone()
