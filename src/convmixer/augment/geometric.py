"""Affine operations on a batch, equal to Pillow's `Image.transform(AFFINE)` and `Image.rotate`.

Shapes: n images, h rows, w columns, c channels, k taps (source pixels along one axis: 2 bilinear, 4 bicubic).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")

# Pillow cuts the fraction off. A flat area must not fall by a level because float32 weights sum to 1 - 1e-7.
_ROUNDING = 2.0**-11


def matrices(op: str, args: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows (a, b, c, d, e, f) of float64, (n, 6): output (x, y) shows the source at (ax + by + c, dx + ey + f).

    `args` (n,): degrees counter-clockwise, shear factor, or shift as a share of the width (X) or height (Y).
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
    else:
        assert op == "Rotate", op
        cos, sin = np.cos(np.radians(args)), np.sin(np.radians(args))
        x, y = width / 2, height / 2
        rows = np.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], axis=1)
    return rows


def affine(images: Tensor, matrix: Tensor, fill: Tensor, *, bicubic: bool) -> Tensor:
    """Images (n, c, h, w) of float levels seen through `matrix` (n, 6) float64, in channels_last memory.

    A pixel whose source lies outside the image takes `fill` (c,); near the border the outermost pixels repeat.
    Each output pixel is a weighted bag of 4 or 16 source pixels, which is what `embedding_bag` gathers and sums.
    """
    n, c, h, w = images.shape
    xs = torch.arange(w, dtype=torch.float64, device=images.device) + 0.5
    ys = torch.arange(h, dtype=torch.float64, device=images.device)[:, None] + 0.5
    m = matrix[:, :, None, None].unbind(1)
    source_x, source_y = m[0] * xs + m[1] * ys + m[2], m[3] * xs + m[4] * ys + m[5]
    inside = (source_x >= 0) & (source_x < w) & (source_y >= 0) & (source_y < h)

    columns, column_weights = _taps(source_x, w, bicubic)
    rows, row_weights = _taps(source_y, h, bicubic)
    first = torch.arange(n, dtype=torch.int32, device=images.device)[:, None, None, None] * (h * w)
    bags = (first + rows * w)[..., :, None] + columns[..., None, :]
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(-1, c)
    values = embedding_bag(bags.view(n * h * w, -1), pixels, per_sample_weights=weights.view(n * h * w, -1), mode="sum")
    levels = (values + _ROUNDING).floor_().clamp_(0, 255).view(n, h, w, c)
    return torch.where(inside[..., None], levels, fill).permute(0, 3, 1, 2)


def _taps(source: Tensor, size: int, bicubic: bool) -> tuple[Tensor, Tensor]:
    """Indices (n, h, w, k) int32, clamped to the image, and weights float32 of the pixels around `source` (n, h, w)."""
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
    near = base.clamp(-4, size + 4).int()
    return (near[..., None] + offsets).clamp_(0, size - 1), weights
