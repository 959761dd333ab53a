"""A training batch as loaders give it, and what a loader is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from convmixer.data.batch_sampler import BatchSampler
from convmixer.errors import UserError


@dataclass
class TrainBatch:
    """Images uint8 [N, size, size, channels], labels int64 [N], their indices [N], as the order has them, and epoch;
    `bad`: (index, reason).

    In the host's memory, unless the whole set is kept on the device: then both tensors lie there already.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: np.ndarray
    epoch: int
    bad: list[tuple[int, str]]

    def pin_memory(self) -> TrainBatch:
        # DataLoader calls this by its name where batches go to a GPU.
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


class BatchLoader(Protocol):
    """Where a run's batches come from."""

    sampler: BatchSampler

    def batches(self, steps: range) -> Generator[list[TrainBatch]]:
        """For each step its micro-batches."""
        ...

    def explain(self, error: RuntimeError) -> UserError | None:
        """What a RuntimeError that came out of `batches` means to the user; None for another error."""
        ...
