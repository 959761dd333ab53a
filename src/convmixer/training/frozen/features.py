"""The pooled features of a split's images, each computed once, by all processes together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from convmixer.backends.torch_inside import headless
from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.data.reader import read_batches
from convmixer.data.source import Source
from convmixer.machine import workers
from convmixer.model import ConvMixer
from convmixer.terminal.progress import Progress
from convmixer.training.resolved_run import ResolvedRun


@dataclass(frozen=True)
class Features:
    """`values`: float32 [n, views, D] of the images `indices`, int64 [n]; `bad`: those that could not be read, and why.

    The views of an image are itself and, where there are two, its mirror image.
    """

    values: np.ndarray
    indices: np.ndarray
    bad: list[tuple[int, str]] = field(default_factory=list)


def feature_runtime(run: ResolvedRun, model: ConvMixer, images: int) -> TorchRuntime:
    """What gives features of so many images over all processes, by the backend that `execution` asks for."""
    config = run.config
    runtime = TorchRuntime(headless(model), run.preprocessing, run.device, run.precision.autocast)
    part = -(-images // run.processes.count)
    runtime.tune(part, config.batch_size, run.preprocessing.size, config.requested_execution)
    return runtime


def compute_features(run: ResolvedRun, runtime: TorchRuntime, source: Source, views: int, label: str) -> Features:
    """Features of the evaluation crops of `source`, on all processes, with a progress bar that says `label`.

    Each process takes a part of the images; all have the whole afterwards.
    """
    config, processes, preprocessing = run.config, run.processes, run.preprocessing
    rank, count = processes.part
    part = np.array_split(np.arange(len(source)), count)[rank]
    values, indices = [np.empty((0, views, run.architecture.dim), np.float32)], [np.empty(0, np.int64)]
    bad: list[tuple[int, str]] = []
    with Progress(len(source), label, enabled=processes.is_first) as progress:
        for batch in read_batches(
            source,
            preprocessing,
            config.batch_size,
            indices=part,
            threads=workers(config.num_parallel_workers),
            max_pixels=config.max_pixels,
        ):
            bad.extend(batch.bad)
            if len(batch.indices):
                seen = [batch.images, np.ascontiguousarray(batch.images[:, :, ::-1])][:views]
                values.append(np.stack([runtime.logits(view) for view in seen], axis=1))
                indices.append(batch.indices)
            progress.add((len(batch.indices) + len(batch.bad)) * count)
    parts = processes.gather((np.concatenate(values), np.concatenate(indices), bad))
    all_values, all_indices, all_bad = zip(*parts, strict=True)
    return Features(np.concatenate(all_values), np.concatenate(all_indices), [one for part in all_bad for one in part])
