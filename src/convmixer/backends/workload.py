"""What is to be run: all that the choice of a backend depends on, but the machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch

from convmixer.arch import Architecture

# Floating point operations per second that decide whether a workload is worth tuning; rather low for such devices.
# A constant and not a measurement: a run and its resumed twin, or two of one length, must decide the same.
NOMINAL_RATE = {"cpu": 1e11, "cuda": 2e13}


@dataclass(frozen=True)
class Workload:
    """A ConvMixer on batches [batch_size, in_chans, image_size, image_size] of a device, forward or a training step.

    `dtype`: fp32, or the type of the autocast that the caller runs in. `recompute`: in training, keep only each block's
    input for the backward pass and compute the rest again (activation checkpointing, https://arxiv.org/abs/1604.06174).
    `drop_path`: the network is also given the factors of its residual branches.
    """

    arch: Architecture
    image_size: int
    batch_size: int
    dtype: torch.dtype
    training: bool
    device: torch.device
    recompute: bool = False
    drop_path: bool = False

    @property
    def flops_per_image(self) -> float:
        """Operations per image: multiplications and additions of the convolutions, three times as many to train."""
        arch = self.arch
        positions = (self.image_size // arch.patch_size) ** 2
        stem = arch.dim * arch.in_chans * arch.patch_size**2
        block = arch.dim * (arch.dim + arch.kernel_size**2)
        return 2.0 * positions * (stem + arch.depth * block) * (3 if self.training else 1)

    def nominal_seconds(self, images: int) -> float:
        """About how long so many images take, by a constant rate of the device."""
        rate = NOMINAL_RATE.get(self.device.type, NOMINAL_RATE["cuda"])
        return images * self.flops_per_image / rate

    def for_tuning(self, seconds: float) -> Workload:
        """On a CPU, whose speed hardly depends on the batch, the same with a batch of about `seconds`."""
        if self.device.type != "cpu":
            return self
        images = max(int(seconds / self.nominal_seconds(1)), 2 * torch.get_num_threads())
        return replace(self, batch_size=min(self.batch_size, images))

    def autocast(self) -> AbstractContextManager[object]:
        """The context that torch's own backends run in for this precision."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)
