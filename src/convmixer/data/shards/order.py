"""The order in which a split that is read from one end of its shards to the other is trained on.

The shards of an epoch are permuted and laid end to end, cut into one range for each process, and the images of a range
are shuffled within a window, as a shuffle buffer does. It is a pure function of (seed, epoch) and the number of
processes: nothing has to be kept to resume it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from convmixer.config.data import ShardOptions
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.shards.index import ShardIndex
from convmixer.data.shards.source import index_in_shards
from convmixer.data.source import Source
from convmixer.data.storage import is_remote
from convmixer.randomness import Stream, hashes, uniforms


def order_of(source: Source, options: ShardOptions) -> SequentialOrder | None:
    """The order in which a source is trained on that is read from one end to the other; None for one read by index."""
    index = index_in_shards(source)
    if index is None or options.shard_order == "shuffled":
        return None
    if options.shard_order == "auto" and not is_remote(index.shards[0]):
        return None
    return SequentialOrder(index, options.shuffle_buffer)


@dataclass(frozen=True, eq=False)
class SequentialOrder:
    """An order of `BatchSampler` for the samples of `index`. `window`: images within which they are shuffled."""

    index: ShardIndex
    window: int

    def epoch(self, sampler: BatchSampler, epoch: int) -> np.ndarray:
        """int64 [count]: such that the slices that each process takes are neighbours in the shards."""
        return _order(self, sampler.seed, epoch, sampler.world, sampler.batch_size)

    def shard_ranks(self, seed: int, epoch: int) -> np.ndarray:
        """The place of each shard among those of an epoch: int64 [shards]."""
        shards = np.arange(len(self.index.shards))
        ranks = np.empty_like(shards)
        ranks[np.argsort(hashes(Stream.SHARDS, seed, epoch, shards), kind="stable")] = shards
        return ranks

    def taken(self, sampler: BatchSampler, rank: int, steps: range) -> Iterator[tuple[int, np.ndarray]]:
        """For each epoch of the steps (epoch, the indices int64 [m] that process `rank` takes, in its order)."""
        first = steps.start
        while first < steps.stop:
            epoch = sampler.epoch(first)
            stop = min((epoch + 1) * sampler.steps_per_epoch, steps.stop)
            batches = [
                sampler.micro_batch(step, rank, micro)
                for step in range(first, stop)
                for micro in range(sampler.accumulate)
            ]
            yield epoch, np.concatenate(batches)
            first = stop


@lru_cache(maxsize=2)
def _order(order: SequentialOrder, seed: int, epoch: int, world: int, batch_size: int) -> np.ndarray:
    index, count = order.index, len(order.index)
    # In the order of the file within a shard, whatever the order of the rows.
    laid_out = np.lexsort((index.samples.offset, order.shard_ranks(seed, epoch)[index.shard]))
    each = count // world
    draws = uniforms(1, Stream.WINDOW, seed, epoch, np.arange(count))[:, 0]
    ranges = []
    for rank in range(world):
        places = np.arange(rank * each, (rank + 1) * each)
        ranges.append(laid_out[places[np.argsort(places + order.window * draws[places], kind="stable")]])
    # Batch by batch, one of each process after the other, as `BatchSampler.micro_batch` cuts them; the few that are
    # left over lie at the end, where no whole batch reaches.
    full = each // batch_size * batch_size
    table = np.stack([part[:full].reshape(-1, batch_size) for part in ranges], axis=1)
    left = [part[full:] for part in ranges]
    whole = np.concatenate([table.reshape(-1), *left, laid_out[world * each :]])
    whole.setflags(write=False)
    return whole
