"""Batches for training: uint8 crops made in loader processes, in an order that is a pure function of the step.

A small set whose crops never change is kept on the device instead: `device_loader`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from convmixer.augment.host import HostAugmentation
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.cache import CachedSource
from convmixer.data.reader import TrainReader
from convmixer.data.shards.order import SequentialOrder
from convmixer.data.shards.stream import WithEncoded, encoded_images
from convmixer.errors import RUN_FAILED, UserError
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.loading.watchdog import Watchdog
from convmixer.training.signals import answer_only_the_parent

PREFETCH = 4  # batches a loader process holds ready
SHARED_MEMORY = "/dev/shm"


# (epoch, indices int64 [n], the encoded images where they are read ahead), or why they could not be read.
_Key = tuple[int, np.ndarray, list[bytes | None] | None] | UserError


class _Batches(Dataset[TrainBatch | UserError]):
    """Key -> batch. `reading` holds the index that each worker is at, `pids` their processes."""

    def __init__(self, reader: TrainReader, workers: int, augment: HostAugmentation | None) -> None:
        self.reader, self.augment = reader, augment
        self.reading: Any = multiprocessing.get_context().Array("q", [-1] * workers, lock=False)
        self.pids: Any = multiprocessing.get_context().Array("q", [0] * workers, lock=False)

    def __getitem__(self, key: _Key) -> TrainBatch | UserError:
        if isinstance(key, UserError):
            return key
        epoch, indices, encoded = key
        reader = self.reader
        if encoded is not None:
            images_ahead = dict(zip(indices.tolist(), encoded, strict=True))
            reader = replace(reader, source=WithEncoded(reader.source, images_ahead))
        worker = get_worker_info()
        samples = []
        try:
            for index in indices.tolist():
                if worker is not None:
                    self.pids[worker.id], self.reading[worker.id] = os.getpid(), index % len(reader.source)
                samples.append(reader.read(epoch, index))
        except UserError as error:
            # Raised here it would reach the main process wrapped in a traceback.
            return error
        crops, labels, actual, bad = zip(*samples, strict=True)
        images, read = np.stack(crops), np.array(actual)
        if self.augment is not None:
            images = self.augment(images, read, epoch)
        return TrainBatch(
            torch.from_numpy(images),
            torch.tensor(labels, dtype=torch.int64),
            read,
            epoch,
            [entry for entry in bad if entry is not None],
        )

    def read_last(self) -> str:
        """Names of the images that the workers were at."""
        return ", ".join(self.reader.source.name(index) for index in self.reading if index >= 0) or "nothing yet"


class _Keys(Sampler[_Key]):
    """The keys of all micro-batches of a process from a step on.

    Where the order is made for it the images are read here, from one end to the other: the loader processes, however
    many they are, decode what they are given.
    """

    def __init__(self, sampler: BatchSampler, steps: range, rank: int) -> None:
        self.sampler, self.steps, self.rank = sampler, steps, rank

    def __iter__(self) -> Iterator[_Key]:
        order, ahead = self.sampler.order, None
        if isinstance(order, SequentialOrder):
            ahead = encoded_images(order, self.sampler.seed, order.taken(self.sampler, self.rank, self.steps))
        for step in self.steps:
            for micro in range(self.sampler.accumulate):
                indices = self.sampler.micro_batch(step, self.rank, micro)
                try:
                    encoded = None if ahead is None else list(islice(ahead, len(indices)))
                except UserError as error:
                    # Raised within DataLoader it would leave its queues half closed; it comes out behind the batches.
                    yield error
                    return
                yield self.sampler.epoch(step), indices, encoded

    def __len__(self) -> int:
        return len(self.steps) * self.sampler.accumulate


def _begin(worker: int) -> None:
    answer_only_the_parent()
    dataset = get_worker_info().dataset  # type: ignore[union-attr]
    assert isinstance(dataset, _Batches)
    if isinstance(dataset.reader.source, CachedSource):
        dataset.reader.source.writer = worker


class WorkerLoader:
    """The micro-batches of process `rank`, read ahead by `workers` processes; `pin`: into page-locked memory.

    `augment`: what these do to the crops of a batch, where it is not done on the device.
    """

    def __init__(
        self,
        reader: TrainReader,
        sampler: BatchSampler,
        *,
        rank: int,
        workers: int,
        pin: bool,
        timeout: float,
        augment: HostAugmentation | None = None,
    ) -> None:
        self.sampler, self.rank, self.workers, self.pin = sampler, rank, workers, pin
        self._dataset = _Batches(reader, workers, augment)
        self._watchdog = Watchdog(timeout, lambda: [pid for pid in self._dataset.pids if pid])
        _check_shared_memory(reader, sampler, workers)

    @property
    def keeps_images(self) -> bool:
        """Whether an image that was read once lies in memory from then on."""
        return isinstance(self._dataset.reader.source, CachedSource)

    def batches(self, steps: range) -> Generator[list[TrainBatch]]:
        """For each step its micro-batches.

        Raises RuntimeError, which `explain` explains, when a worker dies or gives no batch within the time-out.
        """
        batches = self._loader(steps)
        self._watchdog.start()
        try:
            for _ in steps:
                yield [self._next(batches) for _ in range(self.sampler.accumulate)]
        finally:
            self._watchdog.stop()

    def _next(self, batches: Iterator[TrainBatch | UserError]) -> TrainBatch:
        try:
            with self._watchdog.waiting():
                batch = next(batches)
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            raise RuntimeError("a DataLoader worker died while it handed a batch over") from error
        if isinstance(batch, UserError):
            raise batch
        return batch

    def _loader(self, steps: range) -> Iterator[TrainBatch | UserError]:
        handler = signal.getsignal(signal.SIGCHLD)
        with warnings.catch_warnings():
            # More workers than cores are the user's choice, and right where reading waits for a disk.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                self._dataset,
                batch_size=None,
                sampler=_Keys(self.sampler, steps, self.rank),
                num_workers=self.workers,
                pin_memory=self.pin,
                worker_init_fn=_begin if self.workers else None,
                prefetch_factor=PREFETCH if self.workers else None,
            )
            batches = iter(loader)
        # DataLoader would raise the death of a worker out of this signal's handler, in the middle of whatever runs
        # then, saving included. Without it the death is found by the next wait for a batch, within five seconds.
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        return batches

    def explain(self, error: RuntimeError) -> UserError | None:
        """What a RuntimeError of DataLoader means, with the images that were being read; None for another error."""
        if "DataLoader" not in str(error):
            return None
        what = f"gave no batch for {self._watchdog.seconds:g} s" if self._watchdog.timed_out else "was killed"
        return UserError(f"a loader process {what}; being read: {self._dataset.read_last()}", exit_code=RUN_FAILED)


def _check_shared_memory(reader: TrainReader, sampler: BatchSampler, workers: int) -> None:
    """Loader processes hand batches over in shared memory; a container often has 64 MiB of it."""
    if not workers or not os.path.isdir(SHARED_MEMORY):
        return
    size, channels = reader.preprocessing.size, reader.preprocessing.channels
    needed = workers * PREFETCH * sampler.batch_size * size * size * channels
    status = os.statvfs(SHARED_MEMORY)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise UserError(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB, {workers} loader processes need {needed / 2**20:.0f} MiB; "
            "lower --num_parallel_workers or --batch_size, or give the container more (docker: --shm-size)",
            exit_code=RUN_FAILED,
        )
