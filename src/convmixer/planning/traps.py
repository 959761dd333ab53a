"""What is known to go wrong with such options and such data, said before the run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from convmixer.config.checks import MAX_IMBALANCE
from convmixer.machine import usable_cores
from convmixer.training.resolved_run import ResolvedRun

_FEW = 10  # images of a class to train on
_SMALL_SIDE = 64  # pixels, up to which small crops show nothing of an object
_SMALL_CROP = 0.2  # of the area
_PEAK, _SMALL_BATCH = 0.005, 64  # of an adaptive optimizer without clipping
_OF_ADAPTIVE = ("adamw", "adam", "muon", "lamb", "lion")
_EMA_RUN = 3  # times 1 / (1 - decay) steps, in which an average has forgotten its beginning


def traps(run: ResolvedRun) -> list[str]:
    """A line per trap that the run is in, with what to do."""
    return [*_of_the_network(run), *_of_the_data(run), *_of_the_training(run)]


def _of_the_network(run: ResolvedRun) -> Iterator[str]:
    config, arch, size = run.config, run.architecture, run.data.train_size
    side = size // arch.patch_size
    if side == 1:
        yield (
            f"patch_size {arch.patch_size} at {size} px leaves 1 position, where depthwise convolutions see nothing; "
            "lower --patch_size"
        )
    elif side < arch.kernel_size // 2 + 1:
        yield (
            f"kernel_size {arch.kernel_size} is twice the {side} x {side} positions: most of its weights see padding; "
            "lower --kernel_size or --patch_size"
        )
    if size % arch.patch_size:
        yield f"{size} px is no multiple of patch_size {arch.patch_size}: {size % arch.patch_size} px are cut off"
    if config.batch_size * (run.processes.count if config.sync_bn else 1) == 1 and not config.trains_head_alone:
        yield "batch_size 1: BatchNorm normalises each image by itself; raise --batch_size"
    if run.device.type == "cpu" and config.amp_level != "O0" and config.amp_dtype == "fp16":
        yield "fp16 without a GPU is slow and under- or overflows; --amp_dtype bf16 or --amp_level O0"


def _of_the_data(run: ResolvedRun) -> Iterator[str]:
    config, data, size = run.config, run.data, run.data.train_size
    if size <= _SMALL_SIDE and config.min_crop < _SMALL_CROP:
        yield (
            f"min_crop {config.min_crop:g} at {size} px trains on crops of a few pixels; "
            "--min_crop 0.4 to 0.75 is usual there, or 1"
        )
    if size <= 32 and data.preprocessing.crop_pct < 1:
        yield f"crop_pct {data.preprocessing.crop_pct:g} cuts the rim off images of {size} px; --crop_pct 1"
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    few = int((counts < _FEW).sum())
    if few:
        least = data.classes.names[int(counts.argmin())]
        yield f"{few} classes have fewer than {_FEW} training images ({least} {counts.min()}); they are hardly learnt"
    if counts.max() > MAX_IMBALANCE * max(counts.min(), 1) and config.balance == "none":
        times = counts.max() / max(counts.min(), 1)
        yield f"the largest class has {times:.0f} times the images of the smallest; --balance weights"
    if len(data.train) < run.sampler.global_batch:
        batch = run.sampler.global_batch
        yield f"{len(data.train)} training images are fewer than a batch of {batch}; lower --batch_size"
    wanted = config.num_parallel_workers
    if wanted is not None and wanted > usable_cores():
        yield f"{wanted} loader processes on {usable_cores()} cores hinder each other, unless they wait for a disk; -j"


def _of_the_training(run: ResolvedRun) -> Iterator[str]:
    config, sampler = run.config, run.sampler
    steps, peak, batch = config.epochs * sampler.steps_per_epoch, run.schedule.peak, sampler.global_batch
    unclipped = not config.use_clip_grad_norm and config.optimizer in _OF_ADAPTIVE
    if unclipped and peak >= _PEAK and batch < _SMALL_BATCH:
        yield (
            f"a peak learning rate of {peak:g} with batches of {batch} and no clipping often diverges; "
            "--use_clip_grad_norm, or convmixer lr-find"
        )
    if config.with_ema and steps < _EMA_RUN / (1 - config.ema_decay):
        decay = max(1 - 10 / max(steps, 20), 0.5)
        yield (
            f"ema_decay {config.ema_decay:g} averages over {1 / (1 - config.ema_decay):,.0f} steps of {steps:,}; "
            f"about --ema_decay {decay:.4g}"
        )
