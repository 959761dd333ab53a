"""Training batches: who is in them is the plan's word, and no number of workers changes a pixel."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from convmixer.augment.host import HostAugmentation
from convmixer.config.augment import AugmentOptions
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader
from convmixer.data.source import Source
from convmixer.data.splits import open_split
from convmixer.errors import UserError
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.loading.worker_loader import WorkerLoader

# From Python 3.12 on, forking beside torch's threads warns; the loader forks before it uses any.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def reader(folder: Path) -> TrainReader:
    source = open_split("ImageNet", str(folder), "train", train=True)
    return TrainReader(source, Preprocessing(size=8), seed=3, interpolation="bilinear")


def batches(
    folder: Path, sampler: BatchSampler, steps: range, *, rank: int = 0, workers: int = 0
) -> list[list[TrainBatch]]:
    loader = WorkerLoader(reader(folder), sampler, rank=rank, workers=workers, pin=False, timeout=60)
    return list(loader.batches(steps))


def labels_of(source: Source, indices: np.ndarray) -> list[int]:
    return source.labels[indices].tolist()


def test_batches_hold_what_the_plan_says(toy: Path) -> None:
    sampler = BatchSampler(24, batch_size=4, seed=3, world=2, accumulate=2)
    source = open_split("ImageNet", str(toy), "train", train=True)
    for rank in (0, 1):
        for step, micro_batches in zip(range(1, 3), batches(toy, sampler, range(1, 3), rank=rank), strict=True):
            assert len(micro_batches) == 2
            for micro, batch in enumerate(micro_batches):
                assert batch.indices.tolist() == sampler.micro_batch(step, rank, micro).tolist()
                assert batch.labels.tolist() == labels_of(source, batch.indices)
                assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (4, 8, 8, 3))
                assert (batch.epoch, batch.bad) == (step, [])


def test_an_epoch_of_two_processes_shows_each_image_once(toy: Path) -> None:
    sampler = BatchSampler(24, batch_size=4, seed=3, world=2)
    seen = [batch.indices for rank in (0, 1) for (batch,) in batches(toy, sampler, range(3), rank=rank)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(24))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(toy: Path, workers: int) -> None:
    sampler = BatchSampler(24, batch_size=8, seed=3)
    alone = batches(toy, sampler, range(2, 5))
    for (one,), (other,) in zip(alone, batches(toy, sampler, range(2, 5), workers=workers), strict=True):
        assert torch.equal(one.images, other.images)
        assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_crops_are_augmented_where_they_are_made(own_toy: Path, workers: int) -> None:
    (own_toy / "train/red/0.png").write_bytes(b"no image")
    sampler = BatchSampler(24, batch_size=8, seed=3)
    augment = HostAugmentation(AugmentOptions(auto_augment="rand-m9-n3-p1.0"), Preprocessing(size=8), seed=3)
    travelled = pickle.loads(pickle.dumps(augment))
    loader = WorkerLoader(reader(own_toy), sampler, rank=0, workers=workers, pin=False, timeout=60, augment=travelled)
    changed = 0
    for (plain,), (batch,) in zip(batches(own_toy, sampler, range(6)), loader.batches(range(6)), strict=True):
        # By the indices of the images that are really there, in place of bad ones too.
        assert batch.indices.tolist() == plain.indices.tolist()
        expected = augment(plain.images.numpy().copy(), plain.indices, plain.epoch)
        np.testing.assert_array_equal(batch.images.numpy(), expected)
        changed += int((expected != plain.images.numpy()).any((1, 2, 3)).sum())
    assert changed > 24


def test_a_crop_is_another_one_in_the_next_epoch_and_the_same_when_asked_again(toy: Path) -> None:
    sampler = BatchSampler(24, batch_size=24, seed=3)
    by_epoch = []
    for ((batch,),) in (batches(toy, sampler, range(epoch, epoch + 1)) for epoch in (0, 1, 0)):
        by_epoch.append(batch.images[np.argsort(batch.indices)])
    assert torch.equal(by_epoch[0], by_epoch[2])
    assert all(not torch.equal(one, other) for one, other in zip(by_epoch[0], by_epoch[1], strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_replaced_by_the_same_one_every_time(own_toy: Path, workers: int) -> None:
    (own_toy / "train/red/0.png").write_bytes(b"no image")
    sampler = BatchSampler(24, batch_size=24, seed=3)
    ((first,),), ((second,),) = (batches(own_toy, sampler, range(1), workers=n) for n in (0, workers))
    bad = 16  # the first of the third class
    assert [index for index, _ in first.bad] == [bad]
    assert bad not in first.indices
    assert len(first.images) == 24
    assert first.indices.tolist() == second.indices.tolist()
    assert torch.equal(first.images, second.images)
    source = open_split("ImageNet", str(own_toy), "train", train=True)
    assert first.labels.tolist() == labels_of(source, first.indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_images_is_an_error_in_one_line(own_toy: Path, workers: int) -> None:
    for image in (own_toy / "train").glob("*/*"):
        image.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot be decoded$") as caught:
        batches(own_toy, BatchSampler(24, batch_size=8), range(1), workers=workers)
    assert caught.value.exit_code == 1
