"""Random erasing (Zhong et al., 2017, https://arxiv.org/abs/1708.04896) of boxes in normalised images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from convmixer.devices import to_device
from convmixer.randomness import Stream, uniforms

if TYPE_CHECKING:
    from convmixer.config.augment import ErasingMode

AREA = (0.02, 1 / 3)
ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10

Box = tuple[int, int, int, int, int]


def draw_boxes(
    probability: float, max_count: int, height: int, width: int, *, seed: int, epoch: int, indices: np.ndarray
) -> list[Box]:
    """(row of the batch, top, bottom, left, right) of each box to erase in the images `indices` (b,) of the data set.

    Of 1 to `max_count` boxes in an image each has its share of AREA, and an aspect ratio (height over width) that is
    uniform in its logarithm; of ten tries for a box the first that is smaller than the image both ways counts. A pure
    function of (seed, epoch, index), image by image.
    """
    counters = (Stream.ERASING, seed, epoch, indices)
    erased, many = uniforms(2, *counters).T
    counts = 1 + (many * max_count).astype(np.int64)
    boxes = []
    for number in range(max_count):
        u = uniforms(2 * _ATTEMPTS + 2, *counters, number)
        area = (AREA[0] + (AREA[1] - AREA[0]) * u[:, :_ATTEMPTS]) * (height * width / counts[:, None])
        low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
        aspect = np.exp(low + (high - low) * u[:, _ATTEMPTS:-2])
        heights, widths = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (heights < height) & (widths < width)
        first = fits.argmax(axis=1)[:, None]
        h, w = (np.take_along_axis(sizes, first, axis=1)[:, 0].astype(np.int64) for sizes in (heights, widths))
        top, left = (u[:, -2] * (height - h + 1)).astype(np.int64), (u[:, -1] * (width - w + 1)).astype(np.int64)
        wanted = np.flatnonzero((erased < probability) & (number < counts) & fits.any(axis=1))
        boxes += [(int(i), int(top[i]), int(top[i] + h[i]), int(left[i]), int(left[i] + w[i])) for i in wanted]
    return boxes


def erase(
    images: Tensor, boxes: list[Box], mode: ErasingMode, generator: torch.Generator, *, in_place: bool = False
) -> None:
    """Fills `boxes` of normalised images (b, c, h, w) in place.

    `mode`: const, zeros (the mean colour); rand, a normal colour per box; pixel, normal noise per pixel. `generator` is
    of the images' device. A CPU fills box by box, and so touches nothing else; elsewhere a box would cost a launch.
    `in_place`: a CPU draws noise right into the boxes: other numbers, and seven times as slow.
    """
    if images.device.type == "cpu":
        _fill_each(images, boxes, mode, generator, in_place)
    else:
        fill_at_once(images, boxes, mode, generator)


def _fill_each(images: Tensor, boxes: list[Box], mode: ErasingMode, generator: torch.Generator, in_place: bool) -> None:
    channels = images.shape[1]
    for row, top, bottom, left, right in boxes:
        box = images[row, :, top:bottom, left:right]
        if mode == "const":
            box.zero_()
        elif mode == "rand":
            box.copy_(torch.randn(channels, 1, 1, generator=generator, device=images.device))
        elif in_place:
            box.normal_(generator=generator)
        else:
            box.copy_(torch.randn(box.shape, generator=generator))


def fill_at_once(images: Tensor, boxes: list[Box], mode: ErasingMode, generator: torch.Generator) -> None:
    """`erase` in a number of operations that is that of the boxes of one image, whatever the batch."""
    batch, channels, height, width = images.shape
    for part in _one_per_image(boxes):
        mask = inside(part, batch, height, width, images.device)
        if mode == "const":
            images.masked_fill_(mask, 0)
            continue
        side = (1, 1) if mode == "rand" else (height, width)
        noise = torch.randn(batch, channels, *side, generator=generator, device=images.device)
        torch.where(mask, noise, images, out=images)


def _one_per_image(boxes: list[Box]) -> list[list[Box]]:
    """The boxes in their order, in parts in which no image has two."""
    parts: list[list[Box]] = []
    for box in boxes:
        if not parts or box[0] <= parts[-1][-1][0]:
            parts.append([])
        parts[-1].append(box)
    return parts


def inside(boxes: list[Box], batch: int, height: int, width: int, device: torch.device) -> Tensor:
    """Which pixels of a batch lie in the box of their image, bool (b, 1, h, w); at most one box per image."""
    edges = np.zeros((4, batch, 1, 1, 1), dtype=np.int32)
    for row, *box in boxes:
        edges[:, row, 0, 0, 0] = box
    top, bottom, left, right = to_device(edges, device)
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
