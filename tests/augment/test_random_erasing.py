from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from timm.data.random_erasing import RandomErasing

from convmixer.augment.random_erasing import Box, draw_boxes, erase, fill_at_once

HEIGHT, WIDTH, SAMPLES = 40, 56, 3000


def boxes_of(probability: float, count: int, indices: np.ndarray, seed: int = 0) -> list[Box]:
    return draw_boxes(probability, count, HEIGHT, WIDTH, seed=seed, epoch=0, indices=indices)


def erased_by_timm(count: int) -> torch.Tensor:
    random.seed(2)
    images = torch.ones(SAMPLES, 1, HEIGHT, WIDTH)
    return RandomErasing(0.6, mode="const", max_count=count, device="cpu")(images)[:, 0] == 0


def erased_by_us(count: int) -> torch.Tensor:
    images = torch.ones(SAMPLES, 1, HEIGHT, WIDTH)
    erase(images, boxes_of(0.6, count, np.arange(SAMPLES)), "const", torch.Generator())
    return images[:, 0] == 0


@pytest.mark.parametrize("count", [1, 3])
def test_boxes_as_timm(count: int, same_distribution: Callable[[object, object], bool]) -> None:
    theirs, ours = erased_by_timm(count), erased_by_us(count)
    frequencies = [masks.any(2).any(1).float().mean().item() for masks in (theirs, ours)]
    assert frequencies == pytest.approx([0.6, 0.6], abs=0.04)
    theirs, ours = (masks[masks.any(2).any(1)] for masks in (theirs, ours))
    assert same_distribution(theirs.sum((1, 2)), ours.sum((1, 2)))
    extents: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda masks: masks.any(2).sum(1) / masks.any(1).sum(1),
        lambda masks: masks.any(2).int().argmax(1),
        lambda masks: masks.any(1).int().argmax(1),
        lambda masks: masks.any(1).int().cumsum(1).argmax(1),
    ]
    for extent in extents:
        assert same_distribution(extent(theirs), extent(ours))


def test_area_and_aspect_are_within_bounds() -> None:
    """One box: 2 % to a third of the image, height over width from 0.3 to 1 / 0.3, give or take a rounded pixel."""
    for _, top, bottom, left, right in boxes_of(1.0, 1, np.arange(SAMPLES)):
        height, width = bottom - top, right - left
        assert 0 <= top < bottom <= HEIGHT
        assert 0 <= left < right <= WIDTH
        assert (height - 0.5) * (width - 0.5) <= HEIGHT * WIDTH / 3
        assert (height + 0.5) * (width + 0.5) >= 0.02 * HEIGHT * WIDTH
        assert (height - 0.5) / (width + 0.5) < 1 / 0.3
        assert (height + 0.5) / (width - 0.5) > 0.3


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_only_the_boxes_change(mode: str) -> None:
    images = torch.full((40, 3, HEIGHT, WIDTH), 7.0)
    boxes = boxes_of(0.5, 1, np.arange(40))
    erase(images, boxes, mode, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert 10 < len(boxes) < 30
    inside = torch.zeros(40, HEIGHT, WIDTH, dtype=torch.bool)
    for row, top, bottom, left, right in boxes:
        box = images[row, :, top:bottom, left:right]
        inside[row, top:bottom, left:right] = True
        levels = [len(channel.unique()) for channel in box]
        if mode == "pixel":
            assert min(levels) > 1
        else:
            assert levels == [1, 1, 1]
            assert (box == 0).all() == (mode == "const")
    assert (images.permute(0, 2, 3, 1)[~inside] == 7).all()
    noise = images.permute(0, 2, 3, 1)[inside]
    if mode == "pixel":
        assert noise.mean().item() == pytest.approx(0, abs=0.03)
        assert noise.std().item() == pytest.approx(1, abs=0.03)


def test_boxes_depend_on_seed_and_index_only() -> None:
    whole = {box[0]: box[1:] for box in boxes_of(1.0, 1, np.arange(50), seed=4)}
    assert [box[1:] for box in boxes_of(1.0, 1, np.array([30, 2]), seed=4)] == [whole[30], whole[2]]
    assert {box[0]: box[1:] for box in boxes_of(1.0, 1, np.arange(50), seed=5)} != whole


def test_an_image_too_small_for_a_box_stays() -> None:
    images = torch.ones(20, 1, 1, 1)
    erase(images, draw_boxes(1.0, 2, 1, 1, seed=0, epoch=0, indices=np.arange(20)), "const", torch.Generator())
    assert (images == 1).all()


@pytest.mark.parametrize("count", [1, 3])
def test_filling_at_once_fills_the_same_boxes(count: int) -> None:
    boxes = boxes_of(0.6, count, np.arange(40))
    one, other = torch.ones(2, 40, 3, HEIGHT, WIDTH)
    erase(one, boxes, "const", torch.Generator())
    fill_at_once(other, boxes, "const", torch.Generator())
    assert torch.equal(one, other)
    for mode in ("rand", "pixel"):
        images = torch.full((40, 3, HEIGHT, WIDTH), 99.0)
        fill_at_once(images, boxes, mode, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        erased = images[one == 0]
        assert torch.equal(images == 99, one == 1)
        # Standard normal: in rand one colour per box, so that fewer numbers were drawn.
        assert erased.mean().abs() < (0.3 if mode == "rand" else 0.02)
        assert abs(float(erased.std()) - 1) < (0.3 if mode == "rand" else 0.02)
    row, top, bottom, left, right = boxes[-1]
    colours = torch.full((40, 3, HEIGHT, WIDTH), 99.0)
    fill_at_once(colours, boxes, "rand", torch.Generator().manual_seed(0))
    box = colours[row, :, top:bottom, left:right]
    assert torch.equal(box, box[:, :1, :1].expand_as(box))


def test_noise_of_a_box_fills_it_in_place_or_not() -> None:
    boxes = boxes_of(1.0, 1, np.arange(200))
    found = []
    for in_place in (True, False):
        images = torch.full((200, 3, HEIGHT, WIDTH), 99.0)
        erase(images, boxes, "pixel", torch.Generator().manual_seed(1), in_place=in_place)
        found.append(images)
    assert torch.equal(found[0] == 99, found[1] == 99)
    for images in found:
        noise = images[images != 99]
        assert noise.mean().abs() < 0.01
        assert abs(float(noise.std()) - 1) < 0.01
