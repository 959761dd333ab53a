"""Affine operations on a batch, within one level of Pillow's `Image.transform(AFFINE)` and `Image.rotate`.

By nearest neighbours they are equal.

Shapes: n images, h rows, w columns, c channels, k taps (source pixels along one axis: 2 bilinear, 4 bicubic).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from convmixer.augment.draws import ROUNDING
from convmixer.devices import to_device

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel", "TranslateX", "TranslateY")


def matrices(op: str, args: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows (a, b, c, d, e, f) of float64, (n, 6): output (x, y) shows the source at (ax + by + c, dx + ey + f).

    `args` (n,): degrees counter-clockwise, shear factor, or shift: of the image to the right (X) or down (Y) in pixels,
    or for the two `Rel` to the left or up as a fraction of the width or height.
    """
    rows = np.tile([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], (len(args), 1))
    if op == "ShearX":
        rows[:, 1] = args
    elif op == "ShearY":
        rows[:, 3] = args
    elif op == "TranslateXRel":
        rows[:, 2] = args * width
    elif op == "TranslateYRel":
        rows[:, 5] = args * height
    elif op == "TranslateX":
        rows[:, 2] = -args
    elif op == "TranslateY":
        rows[:, 5] = -args
    else:
        assert op == "Rotate", op
        # As Pillow rounds them, so that a quarter of a turn is one.
        cos, sin = np.round(np.cos(np.radians(args)), 15), np.round(np.sin(np.radians(args)), 15)
        x, y = width / 2, height / 2
        rows = np.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], axis=1)
    return rows


def affine(images: Tensor, matrix: Tensor, fill: Tensor, resample: str) -> Tensor:
    """Images (n, c, h, w) of float levels seen through `matrix` (n, 6) float64, by nearest, bilinear or bicubic.

    A pixel whose source lies outside the image takes `fill` (c,); near the border the outermost pixels repeat.
    Each output pixel is a weighted bag of 4 or 16 source pixels, which is what `embedding_bag` gathers and sums. The
    result lies in channels_last memory, but for `nearest`.
    """
    n, c, h, w = images.shape
    if resample == "nearest":
        return _nearest(images, matrix, fill)
    columns, rows = (torch.arange(size, dtype=torch.float64, device=images.device) + 0.5 for size in (w, h))
    by_column, by_row, shift = matrix.view(n, 2, 3, 1, 1).unbind(2)
    source = by_column * columns + by_row * rows[:, None] + shift  # (n, 2, h, w): x, then y
    sizes = to_device(np.array([w, h], dtype=np.int32)[:, None, None], images.device)
    inside = ((source >= 0) & (source < sizes)).all(1)

    taps, tap_weights = _taps(source, sizes, resample == "bicubic")
    first = torch.arange(0, n * h * w, h * w, dtype=torch.int32, device=images.device)[:, None, None, None]
    bags = (first + taps[:, 1] * w)[..., :, None] + taps[:, 0, ..., None, :]
    weights = tap_weights[:, 1, ..., :, None] * tap_weights[:, 0, ..., None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(-1, c)
    values = embedding_bag(bags.view(n * h * w, -1), pixels, per_sample_weights=weights.view(n * h * w, -1), mode="sum")
    levels = (values + ROUNDING).floor_().clamp_(0, 255).view(n, h, w, c)
    return torch.where(inside[..., None], levels, fill).permute(0, 3, 1, 2)


def _nearest(images: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """Each pixel one of the source's, chosen as Pillow does in fixed point: 16 bits below the pixel."""
    n, c, h, w = images.shape
    by_column, by_row, shift = matrix.view(n, 2, 3, 1, 1).unbind(2)
    # Rounded once each, then added up in whole numbers.
    start = _fixed_point(shift + 0.5 * by_column + 0.5 * by_row)
    x, y = (torch.arange(size, dtype=torch.int64, device=images.device) for size in (w, h))
    source = (start + _fixed_point(by_column) * x + _fixed_point(by_row) * y[:, None]) >> 16  # (n, 2, h, w)
    inside = ((source[:, 0] >= 0) & (source[:, 0] < w) & (source[:, 1] >= 0) & (source[:, 1] < h)).view(n, 1, h, w)
    at = source[:, 1].clamp(0, h - 1) * w + source[:, 0].clamp(0, w - 1)
    pixels = images.reshape(n, c, h * w).gather(2, at.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)
    return torch.where(inside, pixels, fill[:, None, None])


def _fixed_point(values: Tensor) -> Tensor:
    return (values * 65536 + 0.5).floor_().long()


def _taps(source: Tensor, sizes: Tensor, bicubic: bool) -> tuple[Tensor, Tensor]:
    """Indices int32 and weights float32, both (n, 2, h, w, k), of the pixels around `source` (n, 2, h, w) on each axis.

    Indices are clamped to the image, of `sizes` (2, 1, 1) int32.
    """
    position = source - 0.5
    base = position.floor()
    d = (position - base).float()
    if bicubic:
        # Keys' kernel with a = -1: so is the bicubic of Pillow's transforms. (Its resize has -0.5, torch has -0.75.)
        d2, d3 = d * d, d * d * d
        weights = torch.stack([-d + 2 * d2 - d3, 1 - 2 * d2 + d3, d + d2 - d3, d3 - d2], dim=-1)
        offsets = torch.arange(-1, 3, dtype=torch.int32, device=source.device)
    else:
        weights = torch.stack([1 - d, d], dim=-1)
        offsets = torch.arange(2, dtype=torch.int32, device=source.device)
    # Clamped before the cast: a source far outside need not fit int32.
    near = base.clamp(-4, 2**30).int()
    return (near[..., None] + offsets).clamp_(0).minimum((sizes - 1)[..., None]), weights
