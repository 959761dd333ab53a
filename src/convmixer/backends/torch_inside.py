"""The inside of a ConvMixer in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from convmixer.backends.runtime import Runtime
from convmixer.data.preprocessing import Preprocessing
from convmixer.devices import memory_format
from convmixer.model import ConvMixer
from convmixer.normalisation import normalise


def headless(model: ConvMixer) -> ConvMixer:
    """A copy whose logits are the features, by a head that is the identity: each backend that runs a model runs it."""
    dim = model.arch.dim
    with torch.device(next(model.parameters()).device):
        copied = ConvMixer(replace(model.arch, num_classes=dim))
        own = {"head.weight": torch.eye(dim), "head.bias": torch.zeros(dim)}
    copied.load_state_dict({**model.state_dict(), **own})
    return copied.eval().to(memory_format=memory_format(model.arch.kernel_size, next(model.parameters()).device))


@torch.no_grad()
def class_maps(model: ConvMixer, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Maps [N, h, w] of `classes` [N] for normalised images [N, C, H, W]; their means over h and w are the logits."""
    maps = model.feature_maps(images)
    weight, bias = model.head.weight[classes], model.head.bias[classes]
    return torch.einsum("nd,ndhw->nhw", weight, maps) + bias[:, None, None]


def maps_of_crops(model: ConvMixer, preprocessing: Preprocessing, crops: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Maps float32 [N, h, w] of crops uint8 [N, size, size, C], image by image, which takes little memory."""
    device = next(model.parameters()).device
    found = []
    for crop, label in zip(crops, classes.tolist(), strict=True):
        image = normalise(torch.from_numpy(crop[None]).to(device), preprocessing)
        found.append(class_maps(model, image, torch.tensor([label], device=device))[0].float().cpu().numpy())
    return np.stack(found)


class TorchInside:
    """That of `model`, in eval mode; `feature_runtime` makes what runs its headless copy."""

    def __init__(
        self, model: ConvMixer, preprocessing: Preprocessing, feature_runtime: Callable[[ConvMixer], Runtime]
    ) -> None:
        self.model, self.preprocessing = model, preprocessing
        self._make = feature_runtime
        self._runtime: Runtime | None = None

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._runtime is None:
            self._runtime = self._make(headless(self.model))
            self._head = tuple(value.detach().float().cpu().numpy() for value in self.model.head.parameters())
        found = self._runtime.logits(images)
        weight, bias = self._head
        return found, found @ weight.T + bias

    def class_maps(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return maps_of_crops(self.model, self.preprocessing, images, classes)
