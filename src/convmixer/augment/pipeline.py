"""The whole augmentation of a batch, in the order of timm's loader.

uint8 crops -> flips -> AutoAugment -> normalised -> erasing -> mixing, and labels -> soft targets.

On a GPU all of it runs there, in a number of operations that does not grow with the batch. For a CPU flips and policy,
which are of each image by itself, are done on bytes where the crops are made (`host.HostAugmentation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from convmixer.augment.auto_augment import auto_augment
from convmixer.augment.draws import draw_flips
from convmixer.augment.mixup import Mixing, draw_mixing, mix, soft_targets
from convmixer.augment.random_erasing import draw_boxes, erase
from convmixer.data.preprocessing import Preprocessing
from convmixer.devices import to_device
from convmixer.errors import UserError
from convmixer.normalisation import normalise_levels
from convmixer.policies.spec import parse_policy
from convmixer.randomness import Stream, generator_seed

if TYPE_CHECKING:
    from convmixer.config.augment import AugmentOptions


class Augmentation:
    """Augmented images and soft targets of a training batch; `rank` is the process's number.

    What happens to an image is a pure function of (seed, epoch, its index in the data set); noise and mixing are of
    (seed, step, rank). `per_image` False: the crops come flipped and augmented. Raises UserError for a wrong
    `auto_augment`.
    """

    def __init__(
        self,
        options: AugmentOptions,
        preprocessing: Preprocessing,
        num_classes: int,
        seed: int,
        rank: int = 0,
        *,
        per_image: bool = True,
    ) -> None:
        self.options = options
        self.preprocessing = preprocessing
        self.num_classes = num_classes
        self.seed = seed
        self.rank = rank
        self.per_image = per_image
        self.policy = parse_policy(options.auto_augment) if options.auto_augment else None
        if self.policy is not None and preprocessing.channels not in (1, 3):
            raise UserError(f"auto_augment: needs images of 1 or 3 channels, not {preprocessing.channels}.")

    @torch.no_grad()
    def __call__(
        self, images: Tensor, labels: Tensor, indices: np.ndarray, epoch: float, step: int
    ) -> tuple[Tensor, Tensor]:
        """Images (b, h, w, c) uint8, labels (b,) int64, indices (b,) -> (b, c, h, w) float32, (b, num_classes) float32.

        The results are on the images' device; of a fractional `epoch` the whole part counts for the draws.
        """
        batch, height, width, _ = images.shape
        assert len(labels) == len(indices) == batch, (images.shape, labels.shape, indices.shape)
        whole, indices, seed = int(epoch), np.asarray(indices), self.seed
        if self.per_image:
            images = self._flip(images, whole, indices)
        levels = images.permute(0, 3, 1, 2).float()
        if self.per_image and self.policy is not None:
            mean, interpolation = self.preprocessing.mean, self.options.policy_interpolation
            levels = auto_augment(levels, self.policy, mean, interpolation, seed=seed, epoch=whole, indices=indices)
        result = normalise_levels(levels, self.preprocessing)
        if self.options.re_prob > 0:
            probability, count = self.options.re_prob, self.options.re_count
            boxes = draw_boxes(probability, count, height, width, seed=seed, epoch=whole, indices=indices)
            # In place as versions before did, to the bit, where all else is done as they did.
            noise = self._noise(images.device, step)
            erase(result, boxes, self.options.re_mode, noise, in_place=self.per_image)
        mixing = self._draw_mixing(batch, height, width, epoch, step)
        targets = soft_targets(labels, self.num_classes, self.options.label_smoothing, mixing)
        return (result if mixing is None else mix(result, mixing)), targets

    def _flip(self, images: Tensor, epoch: int, indices: np.ndarray) -> Tensor:
        """Images (b, h, w, c), each left to right or top to bottom or as it is."""
        for flip, dim in zip(draw_flips(self.options, self.seed, epoch, indices), (2, 1), strict=True):
            if flip.any():
                images = torch.where(to_device(flip, images.device)[:, None, None, None], images.flip(dim), images)
        return images

    def _noise(self, device: torch.device, step: int) -> torch.Generator:
        generator = torch.Generator(device=device)
        return generator.manual_seed(generator_seed(Stream.NOISE, self.seed, step, self.rank))

    def _draw_mixing(self, batch: int, height: int, width: int, epoch: float, step: int) -> Mixing | None:
        off = self.options.mixup_off_epoch
        if 0 < off <= epoch:
            return None
        return draw_mixing(self.options, batch, height, width, seed=self.seed, step=step, rank=self.rank)
