"""Images by a formula, and BatchNorm statistics that fit them, without which a network's answers tell little.

With the statistics of a new network and images of mere noise, the logits of all images agree to a few percent in
evaluation mode, so that a wrong kernel hardly shows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pictures(count: int, size: int, seed: int) -> Tensor:
    """Smooth random blobs with some grain, fp32 [count, 3, size, size], the same for each seed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 7, 7, generator=generator)
    blobs = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return blobs + 0.2 * torch.randn(count, 3, size, size, generator=generator)


def settle_statistics(network: nn.Module, images: Tensor) -> None:
    """Give BatchNorm scales and shifts that are not all alike, and the statistics of these images.

    One pass is enough: each layer's statistics replace those of before, and are those that the next layers saw.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    training = network.training
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    network.train(training)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
