"""What is done to each image by itself, on a CPU: flips and the policy, on bytes, where the crops are made; no torch.

Draws are those of `pipeline`, which does the same to whole batches on a GPU. The result is equal to that to the bit, or
within one level where an image is turned, at less than a third of what those operations cost on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from convmixer.augment.draws import (
    NO_OP,
    RESAMPLES,
    ROUNDING,
    Layer,
    draw_chain,
    draw_flips,
    draw_layers,
    draw_mixture,
    fill_levels,
)
from convmixer.augment.pillow_operations import IN_PILLOW, TABLES, through_table, transformed
from convmixer.data.preprocessing import Preprocessing
from convmixer.policies.spec import AugMix, parse_policy
from convmixer.policies.timm_magnitudes import OPS

if TYPE_CHECKING:
    from convmixer.config.augment import AugmentOptions

_FLIPS = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)


class HostAugmentation:
    """Flips and augments crops; a pure function of (seed, epoch, index), image by image. It can be pickled."""

    def __init__(self, options: AugmentOptions, preprocessing: Preprocessing, seed: int) -> None:
        self.options, self.seed = options, seed
        self.policy = parse_policy(options.auto_augment) if options.auto_augment else None
        self._fill: tuple[int, ...] = ()
        if self.policy is not None:
            self._fill = tuple(int(level) for level in fill_levels(self.policy, preprocessing.mean))

    def __call__(self, images: np.ndarray, indices: np.ndarray, epoch: int) -> np.ndarray:
        """`images`: uint8 [b, h, w, c], c 1 or 3, contiguous, changed in place; `indices` (b,): theirs in the data set.

        Returns the images that came of them.
        """
        policy, seed, size = self.policy, self.seed, images.shape[1:3]
        interpolation, flips = self.options.policy_interpolation, draw_flips(self.options, seed, epoch, indices)
        layers: Iterable[Layer] = ()
        if policy is not None and not isinstance(policy, AugMix):
            layers = draw_layers(policy, interpolation, size, seed=seed, epoch=epoch, indices=indices)
        self._apply(images, flips, list(layers))
        if not isinstance(policy, AugMix):
            return images
        weights = draw_mixture(policy, seed=seed, epoch=epoch, indices=indices)[..., None, None, None]
        mixed = images.astype(np.float32) * weights[:, 0]
        for chain in range(policy.width):
            copies = images.copy()
            layers = draw_chain(policy, chain, interpolation, size, seed=seed, epoch=epoch, indices=indices)
            self._apply(copies, np.zeros_like(flips), list(layers))
            mixed += copies.astype(np.float32) * weights[:, 1 + chain]
        return np.clip(np.floor(mixed + ROUNDING), 0, 255).astype(np.uint8)

    def _apply(self, images: np.ndarray, flips: np.ndarray, layers: list[Layer]) -> None:
        """Flips, bool (2, b), and what the layers say, in their order, on each of `images`, in place."""
        hit = np.any([*flips, *(layer.ops != NO_OP for layer in layers)], axis=0)
        for row in np.flatnonzero(hit):
            # Pixels or Pillow's image, whichever the last operation gave: each turn into the other is a copy.
            crop: np.ndarray | Image.Image = images[row]
            for flip, how in zip(flips[:, row], _FLIPS, strict=True):
                crop = _image(crop).transpose(how) if flip else crop
            for layer in layers:
                if layer.ops[row] == NO_OP:
                    continue
                op, argument = OPS[layer.ops[row]], float(layer.args[row])
                if op in TABLES:
                    crop = through_table(np.asarray(crop), op, argument)
                elif op in IN_PILLOW:
                    crop = IN_PILLOW[op](_image(crop), argument)
                else:
                    crop = transformed(_image(crop), op, argument, RESAMPLES[layer.resample[row]], self._fill)
            images[row] = np.asarray(crop).reshape(images[row].shape)


def _image(crop: np.ndarray | Image.Image) -> Image.Image:
    if isinstance(crop, Image.Image):
        return crop
    return Image.fromarray(crop[..., 0] if crop.ndim == 3 and crop.shape[2] == 1 else crop)
