"""The order of shards that are read from one end to the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.shards.tars import write_shards

from convmixer.config.schema import Config
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.shards.index import ShardIndex
from convmixer.data.shards.order import SequentialOrder, order_of
from convmixer.data.shards.source import open_shards
from convmixer.data.shards.stream import encoded_images
from convmixer.data.source import seeded_subset
from convmixer.data.storage import read_range

UNEVEN = (7, 1, 30, 12, 3, 47)  # 100 images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path / "data/train", "a-", UNEVEN)
    return tmp_path / "data"


@pytest.fixture
def index(folder: Path) -> ShardIndex:
    return open_shards(str(folder), "train", "--train_dir", None).index


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_image_once_per_epoch(index: ShardIndex, world: int, batch_size: int, accumulate: int) -> None:
    sampler = BatchSampler(100, batch_size, 5, world, accumulate, SequentialOrder(index, 20))
    for epoch in (0, 1, 2):
        order = SequentialOrder(index, 20).epoch(sampler, epoch)
        assert sorted(order.tolist()) == list(range(100))
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        taken = [
            image
            for step in steps
            for rank in range(world)
            for micro in range(accumulate)
            for image in sampler.micro_batch(step, rank, micro).tolist()
        ]
        assert len(taken) == len(set(taken)) == sampler.steps_per_epoch * sampler.global_batch


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_process_reads_neighbours_within_a_window(index: ShardIndex, world: int) -> None:
    """Each has one range of the shards laid end to end, and no image is further than a window from its place there."""
    window, epoch = 15, 4
    order = SequentialOrder(index, window)
    sampler = BatchSampler(100, 4, 5, world, 1, order)
    ranks = order.shard_ranks(5, epoch)
    laid_out = sorted(range(100), key=lambda i: (ranks[index.shard[i]], i))
    place = {image: at for at, image in enumerate(laid_out)}
    each = 100 // world
    for rank in range(world):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        ((_, taken),) = order.taken(sampler, rank, steps)
        places = [place[int(image)] - rank * each for image in taken]
        assert set(places) <= set(range(each))
        assert max(abs(at - wanted) for at, wanted in enumerate(places)) < window


def test_epochs_and_seeds_differ_and_are_mixed(index: ShardIndex) -> None:
    order = SequentialOrder(index, 15)

    def of(seed: int, epoch: int) -> list[int]:
        return order.epoch(BatchSampler(100, 4, seed), epoch).tolist()

    assert of(0, 0) == of(0, 0)
    assert of(0, 0) != of(0, 1) != of(1, 1)
    assert of(0, 0) != sorted(of(0, 0))
    assert {tuple(order.shard_ranks(0, epoch)) for epoch in range(20)} > {tuple(order.shard_ranks(0, 0))}


def test_a_window_of_one_image_is_the_order_of_the_shards(index: ShardIndex) -> None:
    order = SequentialOrder(index, 1)
    ranks = order.shard_ranks(0, 0)
    wanted = sorted(range(100), key=lambda i: (ranks[index.shard[i]], i))
    assert order.epoch(BatchSampler(100, 4), 0).tolist() == wanted


def test_fewer_images_than_a_batch(index: ShardIndex) -> None:
    few = index.take(np.arange(5))
    order = SequentialOrder(few, 10)
    sampler = BatchSampler(5, 4, 0, 3, 1, order)
    assert set(sampler.batch(0).tolist()) == set(range(5))
    ((_, taken),) = order.taken(sampler, 1, range(1))
    assert len(list(encoded_images(order, 0, [(0, taken)]))) == 4


@pytest.mark.parametrize("start", [0, 1, 7, 24, 25, 33])
@pytest.mark.parametrize("world", [1, 3])
def test_the_stream_gives_the_images_of_the_order(
    folder: Path, index: ShardIndex, start: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any step on, over the end of an epoch, in requests of few images."""
    monkeypatch.setattr("convmixer.data.shards.stream.REQUEST", 10_000)
    monkeypatch.setattr("convmixer.data.shards.stream._GAP", 2000)
    source = open_shards(str(folder), "train", "--train_dir", None)
    order = SequentialOrder(index, 20)
    sampler = BatchSampler(100, 4, 5, world, 1, order)
    steps = range(start, start + 40)
    wanted = [source.read(int(i)) for step in steps for i in sampler.micro_batch(step, world - 1)]
    found = list(encoded_images(order, 5, order.taken(sampler, world - 1, steps)))
    assert found == wanted


def test_no_more_is_held_than_a_window(index: ShardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each byte is read once: 100 images of one shard after the other."""
    import convmixer.data.shards.stream as stream

    monkeypatch.setattr(stream, "REQUEST", 4096)
    read: list[int] = []

    def counted(location: str, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return read_range(location, start, stop)

    monkeypatch.setattr(stream, "read_range", counted)
    order = SequentialOrder(index, 10)
    sampler = BatchSampler(100, 4, 5, 1, 1, order)
    images = encoded_images(order, 5, order.taken(sampler, 0, range(25)))
    next(images)
    # The window, and the requests that are on their way; each image takes 1536 bytes with its header and its label.
    assert sum(read) < 10 * 2048 + (stream._AHEAD + 2) * (4096 + 2048)
    list(images)
    assert sum(read) <= index.sizes.sum()


def test_when_it_is_sequential(folder: Path, toy: Path) -> None:
    from convmixer.data.splits import open_split

    source = open_shards(str(folder), "train", "--train_dir", None)
    assert order_of(source, Config()) is None
    assert order_of(source, Config(shard_order="sequential", shuffle_buffer=7)).window == 7  # type: ignore[union-attr]
    files = open_split("imagenet", str(toy), "train", train=True)
    assert order_of(files, Config(shard_order="sequential")) is None
    some = order_of(seeded_subset(source, 31, 0), Config(shard_order="sequential"))
    assert some is not None
    subset = seeded_subset(source, 31, 0)
    found = list(encoded_images(some, 0, some.taken(BatchSampler(31, 31, 0, order=some), 0, range(1))))
    assert sorted(map(bytes, filter(None, found))) == sorted(bytes(subset.read(i)) for i in range(31))
