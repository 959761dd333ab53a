from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from tests.networks import Operations

from convmixer.augment.mixup import cut_at_once, draw_mixing
from convmixer.augment.pipeline import Augmentation
from convmixer.augment.random_erasing import draw_boxes, fill_at_once
from convmixer.config.augment import AugmentOptions, ErasingMode
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.normalisation import normalise


def changed(options: AugmentOptions, **values: object) -> AugmentOptions:
    return AugmentOptions(**options.model_dump() | values)


RECIPE = AugmentOptions(
    auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel", mixup=0.5, cutmix=0.5, label_smoothing=0.1
)
UNMIXED = changed(RECIPE, mixup=0.0, cutmix=0.0, re_mode="const", re_prob=0.5)
GREY = Preprocessing(mean=(0.5,), std=(0.25,))


def batch_of(count: int, channels: int = 3, height: int = 30, width: int = 36) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 6, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").mul(255).byte()
    return images.permute(0, 2, 3, 1).contiguous(), torch.arange(count) % 7


def test_normalise_is_the_record_in_numbers() -> None:
    images = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    # (0 / 255 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225
    expected = torch.tensor([-2.117904, 0.205182, 2.64]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(images, Preprocessing()), expected, rtol=0, atol=1e-5)


def test_without_anything_the_images_are_normalised_only() -> None:
    images, labels = batch_of(4)
    found, targets = Augmentation(AugmentOptions(hflip=0.0), Preprocessing(), 7, seed=0)(
        images, labels, np.arange(4), 0, 0
    )
    assert torch.equal(found, normalise(images, Preprocessing()))
    assert torch.equal(targets, torch.nn.functional.one_hot(labels, 7).float())
    assert images.dtype == torch.uint8


@pytest.mark.parametrize(("name", "dim"), [("hflip", 3), ("vflip", 2)])
def test_flips_have_their_probability(name: str, dim: int) -> None:
    images, labels = batch_of(1000, 1, 4, 6)
    plain = normalise(images, GREY)
    for probability in (0.0, 0.3, 1.0):
        settings = changed(AugmentOptions(hflip=0.0), **{name: probability})
        found, _ = Augmentation(settings, GREY, 7, seed=0)(images, labels, np.arange(1000), 0, 0)
        flipped = (found == plain.flip(dim)).flatten(1).all(1)
        kept = (found == plain).flatten(1).all(1)
        assert (flipped | kept).all()
        assert flipped.float().mean().item() == pytest.approx(probability, abs=0.06)


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    images, labels = batch_of(32)
    indices = np.arange(100, 132)
    augment = Augmentation(UNMIXED, Preprocessing(), 7, seed=5)
    whole, _ = augment(images, labels, indices, 3, step=8)
    rows = [17, 3, 30]
    part, _ = Augmentation(UNMIXED, Preprocessing(), 7, seed=5, rank=2)(
        images[rows], labels[rows], indices[rows], 3.5, step=99
    )
    assert torch.equal(part, whole[rows])
    assert not torch.equal(augment(images, labels, indices, 4, step=8)[0], whole)
    assert not torch.equal(augment(images, labels, indices + 1, 3, step=8)[0], whole)
    assert not torch.equal(Augmentation(UNMIXED, Preprocessing(), 7, seed=6)(images, labels, indices, 3, 8)[0], whole)


def test_a_step_is_repeated_exactly_and_reads_no_global_generator() -> None:
    images, labels = batch_of(9)
    states = (torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy(), random.getstate())
    first = Augmentation(RECIPE, Preprocessing(), 7, seed=1, rank=3)(images, labels, np.arange(9), 2, 40)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state(legacy=False)["state"]["key"])
    assert states[2] == random.getstate()
    torch.manual_seed(123)
    second = Augmentation(RECIPE, Preprocessing(), 7, seed=1, rank=3)(images, labels, np.arange(9), 2, 40)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    _, elsewhere = Augmentation(RECIPE, Preprocessing(), 7, seed=1, rank=4)(images, labels, np.arange(9), 2, 40)
    assert not torch.equal(first[1], elsewhere)


@pytest.mark.parametrize(("channels", "preprocessing"), [(3, Preprocessing()), (1, GREY)])
@pytest.mark.parametrize("count", [1, 8])
def test_the_recipe_gives_shapes_and_finite_values(channels: int, preprocessing: Preprocessing, count: int) -> None:
    images, labels = batch_of(count, channels)
    augment = Augmentation(changed(RECIPE, re_prob=1.0), preprocessing, 7, seed=0)
    found, targets = augment(images, labels, np.arange(count), 0, 0)
    assert found.shape == (count, channels, 30, 36)
    assert found.dtype == targets.dtype == torch.float32
    assert torch.isfinite(found).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(count))


def test_mixing_ends_at_its_epoch_and_smoothing_stays() -> None:
    images, labels = batch_of(8)
    augment = Augmentation(changed(RECIPE, mixup_off_epoch=2.0), Preprocessing(), 7, seed=0)
    smooth = torch.nn.functional.one_hot(labels, 7).float() * 0.9 + 0.1 / 7
    torch.testing.assert_close(augment(images, labels, np.arange(8), 2, 5)[1], smooth)
    assert not torch.allclose(augment(images, labels, np.arange(8), 1.9, 5)[1], smooth)


def test_erasing_comes_after_normalisation() -> None:
    images, labels = batch_of(16)
    settings = AugmentOptions(hflip=0.0, re_prob=1.0)
    found, _ = Augmentation(settings, Preprocessing(), 7, seed=0)(images + 1, labels, np.arange(16), 0, 0)
    plain = normalise(images + 1, Preprocessing())
    changed = found != plain
    assert changed.flatten(1).any(1).all()
    assert (found[changed] == 0).all()


def test_noise_is_of_seed_step_and_rank_and_its_place_of_the_image() -> None:
    images, labels = batch_of(8)
    settings = AugmentOptions(hflip=0.0, re_prob=1.0, re_mode="pixel")
    plain = normalise(images, Preprocessing())

    def found(seed: int, step: int, rank: int) -> torch.Tensor:
        return Augmentation(settings, Preprocessing(), 7, seed=seed, rank=rank)(images, labels, np.arange(8), 0, step)[
            0
        ]

    first = found(0, 0, 0)
    assert torch.equal(first, found(0, 0, 0))
    for other in (found(0, 1, 0), found(0, 0, 1)):
        assert torch.equal(other != plain, first != plain)
        assert not torch.equal(other, first)
    assert not torch.equal(found(1, 0, 0) != plain, first != plain)


def test_what_the_device_is_asked_to_do_does_not_grow_with_the_batch() -> None:
    """On a GPU each operation is a launch, whatever its size: a loop over images would be slower than the training."""
    augment = Augmentation(AugmentOptions(auto_augment="rand-m12-n2-p1.0"), Preprocessing(), 7, seed=0)
    found = []
    for count in (400, 1600):
        images, labels = batch_of(count, height=4, width=4)
        with Operations() as operations:
            augment(images, labels, np.arange(count), 0, 0)
        found.append(Counter(str(function) for function, *_ in operations.calls))
    assert found[0] == found[1]
    # From the host: flips, fill, mean and deviation, and of each layer the rows, the arguments, the matrices and, for
    # each interpolation, the image's size.
    assert found[0]["aten.lift_fresh.default"] == 4 + 2 * (3 + 2)
    assert sum(found[0].values()) < 800


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing_and_cutting_on_a_gpu_do_not_grow_with_the_number_of_boxes(mode: ErasingMode) -> None:
    options = AugmentOptions(cutmix=1.0, mixup_mode="elem")
    counts = []
    for count in (64, 256):
        images = torch.zeros(count, 3, 8, 8)
        boxes = draw_boxes(1.0, 1, 8, 8, seed=0, epoch=0, indices=np.arange(count))
        mixing = draw_mixing(options, count, 8, 8, seed=0, step=0, rank=0)
        assert mixing is not None
        assert len(boxes) > count / 2
        assert len(mixing.cuts) > count / 2
        with Operations() as operations:
            fill_at_once(images, boxes, mode, torch.Generator())
            cut_at_once(images, images.flip(0), mixing.cuts)
        counts.append(len(operations.calls))
    assert counts[0] == counts[1] < 50


def test_a_wrong_policy_is_refused_before_any_image() -> None:
    with pytest.raises(ValueError, match="did you mean rand"):
        AugmentOptions(auto_augment="rond-m9")
    four = Preprocessing(mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises(UserError, match="1 or 3 channels, not 4"):
        Augmentation(AugmentOptions(auto_augment="rand-m9"), four, 7, seed=0)
