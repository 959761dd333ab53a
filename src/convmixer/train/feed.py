"""Batches for training: uint8 crops made in loader processes, in an order that is a pure function of the step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from convmixer.data.order import BatchPlan
from convmixer.data.reader import TrainReader


@dataclass
class HostBatch:
    """Images uint8 [N, size, size, channels], labels int64 [N], their indices [N] and epoch; `bad`: (index, reason)."""

    images: torch.Tensor
    labels: torch.Tensor
    indices: np.ndarray
    epoch: int
    bad: list[tuple[int, str]]

    def pin_memory(self) -> HostBatch:
        # DataLoader calls this by its name where batches go to a GPU.
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


class _Batches(Dataset[HostBatch]):
    """Key (epoch, indices) -> batch; DataLoader's workers hold a copy each."""

    def __init__(self, reader: TrainReader) -> None:
        self.reader = reader

    def __getitem__(self, key: tuple[int, np.ndarray]) -> HostBatch:
        epoch, indices = key
        samples = [self.reader.read(epoch, int(index)) for index in indices]
        images, labels, actual, bad = zip(*samples, strict=True)
        return HostBatch(
            torch.from_numpy(np.stack(images)),
            torch.tensor(labels, dtype=torch.int64),
            np.array(actual),
            epoch,
            [report for report in bad if report is not None],
        )


class _Keys(Sampler[tuple[int, np.ndarray]]):
    """The keys of all micro-batches of a process from a step on."""

    def __init__(self, plan: BatchPlan, steps: range, rank: int) -> None:
        self.plan, self.steps, self.rank = plan, steps, rank

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for step in self.steps:
            for micro in range(self.plan.accumulate):
                yield self.plan.epoch(step), self.plan.micro_batch(step, self.rank, micro)

    def __len__(self) -> int:
        return len(self.steps) * self.plan.accumulate


def _ignore_interrupt(_: int) -> None:
    # Ctrl-C reaches the whole process group; the main process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def training_batches(
    reader: TrainReader, plan: BatchPlan, steps: range, *, rank: int, workers: int, pin: bool
) -> Iterator[list[HostBatch]]:
    """For each of `steps` the micro-batches of process `rank`, read ahead by `workers` processes."""
    loader = DataLoader(
        _Batches(reader),
        batch_size=None,
        sampler=_Keys(plan, steps, rank),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_ignore_interrupt if workers else None,
        prefetch_factor=4 if workers else None,
    )
    batches = iter(loader)
    for _ in steps:
        yield [next(batches) for _ in range(plan.accumulate)]
