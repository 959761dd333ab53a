"""Batches of a small set that is kept whole on the training device, where its training crops are made."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch

from convmixer.augment.host import HostAugmentation
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.reader import TrainReader
from convmixer.data.source import in_memory_images
from convmixer.devices import to_device
from convmixer.errors import UserError
from convmixer.training.loading.device_crops import DeviceCrops
from convmixer.training.loading.train_batch import TrainBatch

# Seven times CIFAR-10 or CIFAR-100 (154 MB), and little beside the activations of a step on any GPU one trains on.
MAX_BYTES = 2**30


def whole_images(reader: TrainReader) -> np.ndarray | None:
    """The pixels uint8 [n, size, size, C] that the reader's crops are in every epoch; None where they are not.

    They are where the source holds square images of the network's size, the minimum crop is the whole area and a square
    is allowed: no box of that area but the whole image then fits in, and a resize to the same size changes nothing.
    None too for more than MAX_BYTES.
    """
    size, channels = reader.preprocessing.size, reader.preprocessing.channels
    low, high = reader.ratio
    if reader.min_crop < 1 or not low <= 1 <= high:
        return None
    pixels = in_memory_images(reader.source)
    if pixels is None or pixels.shape[1:] != (size, size, channels) or pixels.nbytes > MAX_BYTES:
        return None
    return pixels


class DeviceLoader:
    """The micro-batches of process `rank`, gathered on `device` from images uint8 [n, H, W, C], labels [n].

    `crops`: what makes their crops; None where these are the images. `augment`: what is done to them then on a CPU.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        sampler: BatchSampler,
        *,
        rank: int,
        device: torch.device,
        crops: DeviceCrops | None = None,
        augment: HostAugmentation | None = None,
    ) -> None:
        self.sampler, self.rank, self.crops, self.augment = sampler, rank, crops, augment
        self.images, self.labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)

    def batches(self, steps: range) -> Generator[list[TrainBatch]]:
        """For each step its micro-batches, whose tensors lie on the device."""
        for step in steps:
            yield [self._gather(step, micro) for micro in range(self.sampler.accumulate)]

    def _gather(self, step: int, micro: int) -> TrainBatch:
        # A copy: the sampler's permutation is read-only, which torch warns of.
        indices = self.sampler.micro_batch(step, self.rank, micro).copy()
        at, epoch = to_device(indices % len(self.images), self.images.device), self.sampler.epoch(step)
        images = self.images[at] if self.crops is None else self.crops(self.images, indices, epoch)
        if self.augment is not None:
            images = torch.from_numpy(self.augment(images.numpy(), indices, epoch))
        return TrainBatch(images, self.labels[at], indices, epoch, [])

    def explain(self, error: RuntimeError) -> UserError | None:
        """None: there are no loader processes whose errors would need to be explained."""
        return None
