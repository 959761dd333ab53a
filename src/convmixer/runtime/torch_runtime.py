"""The torch runtime: a ConvMixer on a device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from convmixer.augment.pipeline import normalise
from convmixer.data.preprocessing import Preprocessing


class TorchRuntime:
    """Runs `model` (on `device`, in eval mode while it runs) under the autocast context that `autocast()` makes."""

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.preprocessing = preprocessing
        self.device = device
        self.autocast = autocast

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        was_training = self.model.training
        self.model.eval()
        try:
            batch = torch.from_numpy(images).to(self.device, non_blocking=True)
            with self.autocast():
                out = self.model(normalise(batch, self.preprocessing))
        finally:
            self.model.train(was_training)
        return out.float().cpu().numpy()
