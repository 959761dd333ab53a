"""What is done to each image by itself, on a CPU: flips and the policy, on bytes, where the crops are made; no torch.

Draws are those of `pipeline`, which does the same to whole batches on a GPU. The result is equal to that to the bit, or
within one level where an image is turned, at less than a third of what those operations cost on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from convmixer.augment.draws import (
    NO_OP,
    RESAMPLES,
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

_ROUNDING = np.float32(2.0**-11)  # as geometric.ROUNDING


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
        for axis, flips in zip((2, 1), draw_flips(self.options, self.seed, epoch, indices), strict=True):
            _flip(images, flips, axis)
        if self.policy is None:
            return images
        interpolation, size, seed = self.options.policy_interpolation, images.shape[1:3], self.seed
        if not isinstance(self.policy, AugMix):
            layers = draw_layers(self.policy, interpolation, size, seed=seed, epoch=epoch, indices=indices)
            self._apply(images, list(layers))
            return images
        weights = draw_mixture(self.policy, seed=seed, epoch=epoch, indices=indices)[..., None, None, None]
        mixed = images.astype(np.float32) * weights[:, 0]
        for chain in range(self.policy.width):
            copies = images.copy()
            layers = draw_chain(self.policy, chain, interpolation, size, seed=seed, epoch=epoch, indices=indices)
            self._apply(copies, list(layers))
            mixed += copies.astype(np.float32) * weights[:, 1 + chain]
        return np.clip(np.floor(mixed + _ROUNDING), 0, 255).astype(np.uint8)

    def _apply(self, images: np.ndarray, layers: list[Layer]) -> None:
        """What the layers say, in their order, on each of `images`, in place."""
        for row in np.flatnonzero(np.any([layer.ops != NO_OP for layer in layers], axis=0)):
            pixels = images[row]
            for layer in layers:
                if layer.ops[row] == NO_OP:
                    continue
                op, argument = OPS[layer.ops[row]], float(layer.args[row])
                if op in TABLES:
                    pixels = through_table(pixels, op, argument)
                else:
                    pixels = self._in_pillow(pixels, op, argument, RESAMPLES[layer.resample[row]])
            images[row] = pixels

    def _in_pillow(self, pixels: np.ndarray, op: str, argument: float, resample: str) -> np.ndarray:
        grey = pixels.shape[2] == 1
        image = Image.fromarray(pixels[..., 0] if grey else pixels)
        if op in IN_PILLOW:
            image = IN_PILLOW[op](image, argument)
        else:
            image = transformed(image, op, argument, resample, self._fill[0] if grey else self._fill)
        return np.asarray(image).reshape(pixels.shape)


def _flip(images: np.ndarray, flips: np.ndarray, axis: int) -> None:
    """Turn those of `images` [b, h, w, c] round that `flips` (b,) names, in place."""
    # Whole pixels are moved, which is twice as fast as each channel by itself.
    pixels = images.view(f"V{images.shape[3]}")[..., 0]
    for row in np.flatnonzero(flips):
        pixels[row] = np.flip(pixels[row], axis - 1).copy()
