"""RandAugment, AutoAugment, TrivialAugment and AugMix on a batch: drawn on the host (`draws`), done on the device.

Images are (b, c, h, w) float32 that hold integer levels 0..255, as Pillow's bytes would after each operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from convmixer.augment.draws import (
    NO_OP,
    RESAMPLES,
    ROUNDING,
    Layer,
    draw_chain,
    draw_layers,
    draw_mixture,
    fill_levels,
)
from convmixer.augment.geometric import GEOMETRIC, affine, matrices
from convmixer.augment.photometric import PHOTOMETRIC
from convmixer.devices import to_device
from convmixer.policies.spec import AugMix, Policy
from convmixer.policies.timm_magnitudes import OPS

if TYPE_CHECKING:
    from convmixer.config.augment import PolicyInterpolation

_GEOMETRIC = np.array([OPS.index(op) for op in GEOMETRIC])


def apply_layer(images: Tensor, layer: Layer, fill: Tensor) -> None:
    """The layer's operations on `images` (b, c, h, w), in place; `fill` (c,): levels of what was outside an image.

    Rows are sorted by what is done to them, so that three small copies carry all that the device must know.
    """
    geometric = np.isin(layer.ops, _GEOMETRIC)
    # All affine operations are one: only their matrices differ. They come last, in a group for each resampling.
    codes = np.where(geometric, len(OPS) + layer.resample, layer.ops)
    rows = np.argsort(codes, kind="stable")
    at = to_device(rows, images.device)
    args = to_device(layer.args[rows].astype(np.float32), images.device)
    affine_rows = rows[len(rows) - geometric.sum() :]
    each = to_device(_matrices(layer, affine_rows, *images.shape[2:]), images.device)
    found, starts = np.unique(codes[rows], return_index=True)
    for code, start, stop in zip(found.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        if code == NO_OP:
            continue
        group = at[start:stop]
        if code < len(OPS):
            images[group] = PHOTOMETRIC[OPS[code]](images[group], args[start:stop])
        else:
            first = len(rows) - len(affine_rows)
            matrix = each[start - first : stop - first]
            images[group] = affine(images[group], matrix, fill, RESAMPLES[code - len(OPS)])


def _matrices(layer: Layer, rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Affine matrices (n, 6) of the layer's `rows` (n,), whose operations are geometric."""
    ops, args, found = layer.ops[rows], layer.args[rows], np.empty((len(rows), 6))
    for op in np.unique(ops):
        found[ops == op] = matrices(OPS[op], args[ops == op], height, width)
    return found


@torch.no_grad()
def auto_augment(
    images: Tensor,
    policy: Policy,
    mean: tuple[float, ...],
    interpolation: PolicyInterpolation,
    *,
    seed: int,
    epoch: int,
    indices: np.ndarray,
) -> Tensor:
    """`policy` on images (b, c, h, w) of float levels, in place; `indices` (b,) are theirs in the data set."""
    fill = to_device(fill_levels(policy, mean), images.device)
    size = (images.shape[2], images.shape[3])
    if isinstance(policy, AugMix):
        weights = to_device(draw_mixture(policy, seed=seed, epoch=epoch, indices=indices), images.device)
        mixed = images * weights[:, 0, None, None, None]
        for chain in range(policy.width):
            copies = images.clone()
            for layer in draw_chain(policy, chain, interpolation, size, seed=seed, epoch=epoch, indices=indices):
                apply_layer(copies, layer, fill)
            mixed += copies * weights[:, 1 + chain, None, None, None]
        return images.copy_((mixed + ROUNDING).floor_().clamp_(0, 255))
    for layer in draw_layers(policy, interpolation, size, seed=seed, epoch=epoch, indices=indices):
        apply_layer(images, layer, fill)
    return images
