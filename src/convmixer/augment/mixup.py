"""Mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899) of a batch with its reverse.

Image i is mixed with image b - 1 - i; where the batch is odd, the middle one with itself, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from convmixer.augment.random_erasing import inside
from convmixer.devices import to_device
from convmixer.randomness import Stream, hashes

if TYPE_CHECKING:
    from convmixer.config.augment import AugmentOptions


@dataclass(frozen=True)
class Cut:
    """Rows `start` to `stop` of the batch take this box from their partners."""

    start: int
    stop: int
    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Mixing:
    """How a batch is mixed: `lam` (b,) float32 of each image itself in its target; `blend` the same for its pixels,
    which is 1 where a box is cut instead."""

    lam: np.ndarray
    blend: np.ndarray
    cuts: tuple[Cut, ...]


def draw_mixing(
    options: AugmentOptions, batch: int, height: int, width: int, *, seed: int, step: int, rank: int
) -> Mixing | None:
    """The mixing of a process's batch at a step, a pure function of its arguments; None where nothing is mixed."""
    if options.mixup <= 0 and options.cutmix <= 0:
        return None
    random = np.random.Generator(np.random.Philox(key=int(hashes(Stream.MIXING, seed, step, rank))))
    draws = {"batch": 1, "pair": batch // 2, "elem": batch}[options.mixup_mode]
    switch = {(True, False): 0.0, (False, True): 1.0}.get((options.mixup > 0, options.cutmix > 0), options.switch_prob)
    mixed = random.random(draws) < options.mixup_prob
    is_cut = random.random(draws) < switch
    lam = np.ones(draws)
    for alpha, chosen in ((options.mixup, mixed & ~is_cut), (options.cutmix, mixed & is_cut)):
        if alpha > 0:
            lam = np.where(chosen, random.beta(alpha, alpha, draws), lam)
    boxes = _boxes(lam, random.random((2, draws)), height, width)
    is_cut &= lam < 1
    area = (boxes[1] - boxes[0]) * (boxes[3] - boxes[2])
    blend = np.where(is_cut, 1.0, lam)
    # The box may reach over the border: the target follows what was really cut.
    lam = np.where(is_cut, 1.0 - area / (height * width), lam)
    rows = [(0, 0, batch)] if options.mixup_mode == "batch" else [(i, i, i + 1) for i in range(draws)]
    if options.mixup_mode == "pair":
        rows += [(i, batch - 1 - i, batch - i) for i in range(draws)]
    batch_lam, batch_blend, cuts = np.ones(batch, np.float32), np.ones(batch, np.float32), []
    for i, start, stop in rows:
        batch_lam[start:stop], batch_blend[start:stop] = lam[i], blend[i]
        if is_cut[i]:
            cuts.append(Cut(start, stop, *(int(edge[i]) for edge in boxes)))
    return Mixing(batch_lam, batch_blend, tuple(cuts))


def _boxes(lam: np.ndarray, centre: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Top, bottom, left, right (n,) of boxes of area 1 - `lam` (n,) around `centre` (2, n) in [0, 1), clipped."""
    edges: list[np.ndarray] = []
    for size, u in ((height, centre[0]), (width, centre[1])):
        side = (size * np.sqrt(1.0 - lam)).astype(np.int64)
        middle = (u * size).astype(np.int64)
        edges += [np.clip(middle - side // 2, 0, size), np.clip(middle + (side + 1) // 2, 0, size)]
    return tuple(edges)


def mix(images: Tensor, mixing: Mixing) -> Tensor:
    """Mixed images (b, c, h, w)."""
    partners = images.flip(0)
    if np.any(mixing.blend < 1):
        blend = to_device(mixing.blend, images.device)[:, None, None, None]
        images = images * blend + partners * (1 - blend)
    elif mixing.cuts:
        images = images.clone()
    if len(mixing.cuts) > 1 and images.device.type != "cpu":
        return cut_at_once(images, partners, mixing.cuts)
    for cut in mixing.cuts:
        box = (slice(cut.start, cut.stop), slice(None), slice(cut.top, cut.bottom), slice(cut.left, cut.right))
        images[box] = partners[box]
    return images


def cut_at_once(images: Tensor, partners: Tensor, cuts: Sequence[Cut]) -> Tensor:
    """The images with those boxes of their partners, in a number of operations that does not grow with that of the
    boxes; at most one box per image."""
    boxes = [(row, cut.top, cut.bottom, cut.left, cut.right) for cut in cuts for row in range(cut.start, cut.stop)]
    batch, _, height, width = images.shape
    mask = inside(boxes, batch, height, width, images.device)
    return torch.where(mask, partners, images)


def soft_targets(labels: Tensor, num_classes: int, smoothing: float, mixing: Mixing | None = None) -> Tensor:
    """Targets (b, num_classes) float32 of labels (b,) int64, smoothed, and mixed as the images are."""
    off = smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, dtype=torch.float32, device=labels.device)
    targets.scatter_(1, labels[:, None], 1.0 - smoothing + off)
    if mixing is None:
        return targets
    lam = to_device(mixing.lam, labels.device)[:, None]
    return targets * lam + targets.flip(0) * (1 - lam)
