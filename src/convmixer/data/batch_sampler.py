"""Which images are read when: pure functions of the seed and the step, the same on every process and after any resume.

There is one permutation of the whole set per epoch, or another order of it where shards are read from one end to the
other (`data.shards.order`); a step takes the next `global_batch` of it, and each process its slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from convmixer.randomness import Stream, hashes


@lru_cache(maxsize=2)
def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: int64 [count], each index once. Kept for the next call, so it is read-only."""
    order = np.argsort(hashes(Stream.ORDER, seed, epoch, np.arange(count)), kind="stable")
    order.setflags(write=False)
    return order


def steps_per_epoch(count: int, global_batch: int) -> int:
    """Whole batches only: the rest of a permutation waits for another epoch. At least one step."""
    return max(1, count // global_batch)


class Order(Protocol):
    """Another order of an epoch than `permutation`: of a set that is read from one end to the other, or one in which
    images come several times."""

    def epoch(self, sampler: BatchSampler, epoch: int) -> np.ndarray:
        """Indices, int64, at least as many as the epoch's steps take; `sampler`: the one that cuts batches from it.

        One of n or more, where the set has n images, is a further draw of the image that it is modulo n.
        """
        ...


@dataclass(frozen=True)
class BatchSampler:
    """Which images each process takes at each step.

    `count`: images in the set; `batch_size`: images that a process takes at once; `world`: processes; `accumulate`:
    micro-batches of each process in one step; `order`: that of each epoch, None for a permutation of the whole set.
    """

    count: int
    batch_size: int
    seed: int = 0
    world: int = 1
    accumulate: int = 1
    order: Order | None = None

    @property
    def global_batch(self) -> int:
        """Images that one step, one update of the weights, uses."""
        return self.batch_size * self.world * self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.count, self.global_batch)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step, counted from 0 over the whole run, belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Indices of one step, int64 [global_batch]; a set smaller than that is gone through again to fill it."""
        epoch = self.epoch(step)
        order = permutation(self.count, self.seed, epoch) if self.order is None else self.order.epoch(self, epoch)
        if self.count < self.global_batch:
            return np.resize(order, self.global_batch)
        first = step % self.steps_per_epoch * self.global_batch
        return order[first : first + self.global_batch]

    def micro_batch(self, step: int, rank: int = 0, micro: int = 0) -> np.ndarray:
        """Indices that process `rank` takes in micro-batch `micro` of a step, int64 [batch_size]."""
        first = (micro * self.world + rank) * self.batch_size
        return self.batch(step)[first : first + self.batch_size]
