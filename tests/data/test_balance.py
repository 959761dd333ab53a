"""Class weights by hand; the balanced order: what it promises, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from convmixer.config.loss import BalanceKind
from convmixer.config.schema import Config
from convmixer.data.balance import BalancedOrder, balance_remark, class_weights
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.classes import ClassMap
from convmixer.data.reader import TrainReader
from convmixer.data.source import ArraySource
from convmixer.inputs import preprocessing_of

UNEVEN = np.repeat([0, 1, 2], [30, 6, 1])


def sampler(labels: np.ndarray, **changes: int) -> BatchSampler:
    return BatchSampler(len(labels), **({"batch_size": 6, "seed": 3} | changes), order=BalancedOrder(labels))


def epoch_of(plan: BatchSampler, epoch: int) -> np.ndarray:
    first = epoch * plan.steps_per_epoch
    return np.concatenate([plan.batch(step) for step in range(first, first + plan.steps_per_epoch)])


def test_class_weights_by_hand() -> None:
    assert_allclose(class_weights(np.array([0, 0, 0, 1]), 2), [2 / 3, 2])
    # 37 / (3 * 30), 37 / (3 * 6), 37 / 3, and a class without images.
    weights = class_weights(UNEVEN, 4)
    assert_allclose(weights, [0.411111, 2.055556, 12.333333, 0], atol=1e-6)
    assert weights[UNEVEN].mean() == pytest.approx(1)


def test_each_class_is_drawn_equally_often_in_as_many_steps() -> None:
    plan = sampler(UNEVEN)
    assert plan.steps_per_epoch == BatchSampler(len(UNEVEN), 6).steps_per_epoch == 6
    for epoch in range(5):
        draws = epoch_of(plan, epoch)
        assert len(draws) == 36
        assert np.bincount(UNEVEN[draws % 37]).tolist() == [12, 12, 12]
        # Every draw is another one, so that its crop is.
        assert len(set(draws.tolist())) == 36


def test_no_image_waits_longer_than_the_others_of_its_class() -> None:
    plan = sampler(UNEVEN)
    # After 5 epochs class 0 was drawn 60 times, twice each of its 30; after 2 it was not yet gone through.
    counts = np.bincount(np.concatenate([epoch_of(plan, epoch) for epoch in range(5)]) % 37, minlength=37)
    assert counts.tolist() == [2] * 30 + [10] * 6 + [60]
    early = np.bincount(np.concatenate([epoch_of(plan, epoch) for epoch in range(2)]) % 37, minlength=37)
    assert set(early[:30].tolist()) == {0, 1}


def test_classes_take_turns_where_they_are_more_than_the_draws_of_an_epoch() -> None:
    labels = np.arange(10)
    plan = sampler(labels, batch_size=4)
    draws = np.concatenate([epoch_of(plan, epoch) for epoch in range(5)])
    assert len(draws) == 40
    assert np.bincount(labels[draws % 10]).tolist() == [4] * 10


def test_a_set_smaller_than_a_batch_is_balanced_too() -> None:
    labels = np.array([0, 0, 0, 1])
    draws = sampler(labels, batch_size=12).batch(0)
    assert np.bincount(labels[draws % 4]).tolist() == [6, 6]


@pytest.mark.parametrize(("world", "accumulate", "batch_size"), [(2, 1, 6), (2, 3, 2), (1, 4, 3)])
def test_processes_share_out_the_same_global_batch(world: int, accumulate: int, batch_size: int) -> None:
    alone = sampler(UNEVEN, batch_size=12)
    plan = sampler(UNEVEN, batch_size=batch_size, world=world, accumulate=accumulate)
    for step in (0, 2, 7):
        parts = [plan.micro_batch(step, rank, micro) for micro in range(accumulate) for rank in range(world)]
        assert_array_equal(np.concatenate(parts), alone.batch(step))


def test_the_order_depends_on_seed_and_epoch_and_is_the_same_for_ever() -> None:
    plan = sampler(UNEVEN)
    assert epoch_of(plan, 0).tolist() != epoch_of(plan, 1).tolist()
    assert epoch_of(plan, 0).tolist() != epoch_of(sampler(UNEVEN, seed=4), 0).tolist()
    # Written out once: a resumed run must find the order that it began with.
    assert plan.batch(0).tolist() == [29, 32, 36 + 4 * 37, 30, 2, 34]


def test_another_draw_of_an_image_is_another_crop_of_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    source = ArraySource(pixels, np.array([0, 1]), ClassMap(("a", "b")), "noise")
    reader = TrainReader(source, preprocessing_of(Config(image_size=8), 3))
    crops = [reader.read(0, 1 + 2 * again) for again in range(3)]
    assert [(label, index, bad) for _, label, index, bad in crops] == [(1, 1, None), (1, 3, None), (1, 5, None)]
    assert len({crop.tobytes() for crop, *_ in crops}) == 3
    assert_array_equal(crops[0][0], reader.read(0, 1)[0])


@pytest.mark.parametrize(
    ("balance", "counts", "expected"),
    [
        ("none", (20, 2), None),
        ("none", (21, 2), "2 (rose) to 21 (daisy); --balance weights or --balance sampler helps the rare ones"),
        ("weights", (3, 1), "1 (rose) to 3 (daisy); they count 2 and 0.667 times in the loss"),
        ("sampler", (3, 1), "1 (rose) to 3 (daisy); each class is drawn equally often"),
    ],
)
def test_the_remark_names_the_classes(balance: BalanceKind, counts: tuple[int, int], expected: str | None) -> None:
    labels = np.repeat([0, 2], counts)
    source = ArraySource(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, ClassMap(("daisy", "none", "rose")), "x")
    remark = balance_remark(source, balance)
    if expected is None:
        assert remark is None
    else:
        assert remark is not None
        assert remark.startswith("training images per class: ")
        assert expected in remark
