from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from convmixer.data.batch_sampler import BatchSampler, permutation, steps_per_epoch


@pytest.mark.parametrize("count", [1, 2, 17, 1000])
def test_an_epoch_has_every_index_once(count: int) -> None:
    order = permutation(count, seed=3, epoch=5)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


def test_the_order_is_shuffled_and_changes_with_seed_and_epoch() -> None:
    orders = [permutation(2000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    orders.append(np.arange(2000))
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert spearmanr(one, other).pvalue > 0.001


def test_the_order_is_the_same_for_ever() -> None:
    # Written out once: a resumed run must find the order that it began with, after any update of ours or NumPy's.
    assert permutation(10, seed=0, epoch=0).tolist() == [8, 9, 2, 4, 3, 1, 6, 7, 5, 0]


@pytest.mark.parametrize(
    ("count", "global_batch", "steps"), [(100, 10, 10), (109, 10, 10), (10, 10, 1), (9, 10, 1), (1, 512, 1)]
)
def test_steps_per_epoch(count: int, global_batch: int, steps: int) -> None:
    assert steps_per_epoch(count, global_batch) == steps


def test_an_epoch_of_batches_has_no_index_twice() -> None:
    plan = BatchSampler(count=103, batch_size=10, seed=1)
    seen = np.concatenate([plan.batch(step) for step in range(plan.steps_per_epoch)])
    assert len(seen) == len(set(seen.tolist())) == 100
    assert [plan.epoch(step) for step in (0, 9, 10, 29)] == [0, 0, 1, 2]
    np.testing.assert_array_equal(plan.batch(12), permutation(103, 1, 1)[20:30])


@pytest.mark.parametrize(
    ("world", "accumulate", "batch_size"), [(1, 1, 12), (1, 4, 3), (2, 1, 6), (2, 3, 2), (3, 2, 2)]
)
def test_processes_and_micro_batches_share_out_the_same_global_batch(
    world: int, accumulate: int, batch_size: int
) -> None:
    alone = BatchSampler(count=50, batch_size=12, seed=7)
    plan = BatchSampler(count=50, batch_size=batch_size, seed=7, world=world, accumulate=accumulate)
    for step in range(9):
        parts = [plan.micro_batch(step, rank, micro) for micro in range(accumulate) for rank in range(world)]
        assert {len(part) for part in parts} == {batch_size}
        np.testing.assert_array_equal(np.concatenate(parts), alone.batch(step))


def test_a_set_smaller_than_a_batch_is_gone_through_again() -> None:
    plan = BatchSampler(count=5, batch_size=4, world=3)
    counts = np.bincount(plan.batch(0), minlength=5)
    assert len(plan.batch(0)) == 12
    assert counts.min() == 2
    assert counts.max() == 3
    assert plan.epoch(1) == 1
