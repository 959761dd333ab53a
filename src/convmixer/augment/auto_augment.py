"""RandAugment and AutoAugment on a batch: what each image gets is drawn on the host, then done on the device.

Images are (b, c, h, w) float32 that hold integer levels 0..255, as Pillow's bytes would after each operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convmixer.augment.geometric import GEOMETRIC, affine, matrices
from convmixer.augment.levels import OPS, arguments
from convmixer.augment.photometric import PHOTOMETRIC
from convmixer.augment.settings import Interpolation
from convmixer.augment.spec import Policy, RandAugment
from convmixer.augment.transfer import to_device
from convmixer.randomness import Stream, normals, uniforms

NO_OP = -1
_GEOMETRIC = np.array([OPS.index(op) for op in GEOMETRIC])


@dataclass(frozen=True)
class Layer:
    """One operation for each image of a batch: `ops` (b,) indices into OPS or NO_OP, `args` (b,), `bicubic` (b,)."""

    ops: np.ndarray
    args: np.ndarray
    bicubic: np.ndarray


def draw_layers(
    policy: Policy, interpolation: Interpolation, seed: int, epoch: int, indices: np.ndarray
) -> Iterator[Layer]:
    """The operations of the images `indices` (b,) of the data set, in the order in which they are applied.

    A pure function of its arguments, image by image: neither the batch nor the process plays a part.
    """
    for number, (ops, probabilities, levels) in enumerate(_choose(policy, seed, epoch, indices), start=1):
        counters = (Stream.AUGMENT, seed, epoch, indices, number)
        applied, sign, cubic, level, within = uniforms(5, *counters, 0).T
        if policy.level_std == np.inf:
            levels = levels * level
        elif policy.level_std > 0:
            levels = levels + policy.level_std * normals(1, *counters, 1)[:, 0]
        levels = np.clip(levels, 0.0, policy.level_max)
        signs = np.where(sign < 0.5, -1.0, 1.0)
        args = np.zeros(len(indices))
        for op in np.unique(ops[ops != NO_OP]):
            rows = ops == op
            args[rows] = arguments(OPS[op], levels[rows], signs[rows], within[rows])
        bicubic = cubic < 0.5 if interpolation == "random" else np.full(len(indices), interpolation == "bicubic")
        yield Layer(np.where(applied < probabilities, ops, NO_OP), args, bicubic)


def _choose(
    policy: Policy, seed: int, epoch: int, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each layer: operation, probability and level (each (b,)) that the policy gives to each image."""
    counters = (Stream.AUGMENT, seed, epoch, indices, 0)
    if isinstance(policy, RandAugment):
        known = np.array([OPS.index(op) for op in policy.ops])
        if policy.weights is None:
            chosen = (uniforms(policy.layers, *counters) * len(known)).astype(np.int64)
        else:
            # The least of exponential waiting times at rates w is each with probability w / sum(w), and so on among
            # the rest: a weighted draw without replacement, in order.
            waiting = -np.log1p(-uniforms(len(known), *counters)) / np.array(policy.weights)
            chosen = np.argsort(waiting, axis=1)[:, : policy.layers]
        for column in chosen.T:
            yield known[column], np.full(len(indices), policy.probability), np.full(len(indices), policy.level)
        return
    branch = (uniforms(1, *counters)[:, 0] * len(policy.branches)).astype(np.int64)
    for depth in range(max(len(steps) for steps in policy.branches)):
        steps = [steps[depth] if depth < len(steps) else None for steps in policy.branches]
        ops = np.array([OPS.index(step.op) if step else NO_OP for step in steps])
        probabilities = np.array([step.probability if step else 0.0 for step in steps])
        levels = np.array([step.level if step else 0.0 for step in steps])
        yield ops[branch], probabilities[branch], levels[branch]


def apply_layer(images: Tensor, layer: Layer, fill: Tensor) -> None:
    """The layer's operations on `images` (b, c, h, w), in place; `fill` (c,): levels of what was outside an image.

    Rows are sorted by what is done to them, so that three small copies carry all that the device must know.
    """
    geometric = np.isin(layer.ops, _GEOMETRIC)
    # All affine operations are one: only their matrices differ. They come last, in two groups.
    kinds = np.where(geometric, len(OPS) + layer.bicubic, layer.ops)
    rows = np.argsort(kinds, kind="stable")
    at = to_device(rows, images.device)
    args = to_device(layer.args[rows].astype(np.float32), images.device)
    affine_rows = rows[len(rows) - geometric.sum() :]
    each = to_device(_matrices(layer, affine_rows, *images.shape[2:]), images.device)
    found, starts = np.unique(kinds[rows], return_index=True)
    for kind, start, stop in zip(found.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        if kind == NO_OP:
            continue
        group = at[start:stop]
        if kind < len(OPS):
            images[group] = PHOTOMETRIC[OPS[kind]](images[group], args[start:stop])
        else:
            first = len(rows) - len(affine_rows)
            matrix = each[start - first : stop - first]
            images[group] = affine(images[group], matrix, fill, bicubic=kind > len(OPS))


def _matrices(layer: Layer, rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Affine matrices (n, 6) of the layer's `rows` (n,), whose operations are geometric."""
    ops, args, found = layer.ops[rows], layer.args[rows], np.empty((len(rows), 6))
    for op in np.unique(ops):
        found[ops == op] = matrices(OPS[op], args[ops == op], height, width)
    return found


def fill_levels(mean: tuple[float, ...]) -> np.ndarray:
    """Levels (c,) float32 of a mean colour given as shares, rounded as timm does."""
    return np.array([min(255, round(255 * value)) for value in mean], dtype=np.float32)


@torch.no_grad()
def auto_augment(
    images: Tensor,
    policy: Policy,
    mean: tuple[float, ...],
    interpolation: Interpolation,
    *,
    seed: int,
    epoch: int,
    indices: np.ndarray,
) -> Tensor:
    """`policy` on images (b, c, h, w) of float levels, in place; `indices` (b,) are theirs in the data set."""
    fill = to_device(fill_levels(mean), images.device)
    for layer in draw_layers(policy, interpolation, seed, epoch, indices):
        apply_layer(images, layer, fill)
    return images
