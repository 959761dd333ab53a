"""What a run is, known whole before anything of it is made: options and weights agree, or the run is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from convmixer.arch import Architecture, ArchitectureHints, architecture, check_image_size
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.data.balance import BalancedOrder
from convmixer.data.batch_sampler import BatchSampler, Order
from convmixer.data.shards.order import order_of
from convmixer.distributed.processes import Processes
from convmixer.errors import UserError
from convmixer.inputs import with_weights
from convmixer.precision import Precision
from convmixer.training.auto_batch import with_batch
from convmixer.training.datasets import TrainingData, check_class_count, open_splits, training_data
from convmixer.training.intervals import Intervals
from convmixer.training.lr_schedule import LRSchedule
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.suiting import suited
from convmixer.training.time_budget import within_budget
from convmixer.weights.grey import for_grey
from convmixer.weights.load import check, complete
from convmixer.weights.read import WeightFile, read_weights

Say = Callable[[str], None]
_OF_THE_NETWORK = ("kernel_size", "patch_size", "activation")


def resolve_run(
    resolved: Resolved[Config], device: torch.device, processes: Processes, command: str, say: Say
) -> ResolvedRun:
    """The run that the options ask for; `say` gets lines on what the weights decide.

    Reads folders and weights, makes networks only to measure with them, and writes nothing. Raises UserError for
    all that does not fit.
    """
    config = resolved.options
    weights = read_weights(config.pretrained, config.entry) if config.pretrained else None
    if weights is not None and (weights.shape.in_chans, resolved.explicit("in_chans")) == (3, 1):
        weights, line = for_grey(weights)
        say(line)
    splits = open_splits(config, weights, say)
    resolved = suited(resolved, splits.train, device, say)
    data = training_data(resolved, splits, weights, say)
    check_class_count(resolved, data.classes)
    arch = _architecture(resolved, weights, len(data.classes), say)
    if weights is not None:
        check(weights, arch)
        inputs = None if weights.preprocessing is None else data.preprocessing
        resolved = with_weights(resolved, arch, inputs, str(weights.path))
    check_image_size(arch, data.preprocessing.size)

    def assembled(options: Resolved[Config]) -> ResolvedRun:
        return _assembled(options, command, device, processes, weights, data, arch)

    resolved = with_batch(resolved, assembled, say)
    return assembled(within_budget(resolved, assembled, say))


def _assembled(
    resolved: Resolved[Config],
    command: str,
    device: torch.device,
    processes: Processes,
    weights: WeightFile | None,
    data: TrainingData,
    arch: Architecture,
) -> ResolvedRun:
    """The run of options that have a batch."""
    config = resolved.options
    _check_shapes(config, arch, data.train_size, processes.count)
    sampler = BatchSampler(
        len(data.train),
        config.batch_size,
        config.seed,
        processes.count,
        config.accumulate,
        _order(config, data),
    )
    return ResolvedRun(
        resolved,
        command,
        device,
        processes,
        weights,
        data,
        arch,
        sampler,
        Precision.of(config, device),
        LRSchedule(config, sampler),
        Intervals(config, sampler.steps_per_epoch),
    )


def _order(config: Config, data: TrainingData) -> Order | None:
    """The order of the training images, None for a permutation of all. Raises UserError for two orders at once."""
    sequential = order_of(data.train, config)
    if config.balance != "sampler":
        return sequential
    if sequential is not None:
        raise UserError(
            "--balance sampler: draws any image next, and these shards are read from one end to the other; "
            "--shard_order shuffled or --balance weights goes with it"
        )
    return BalancedOrder(data.train.labels)


def _architecture(resolved: Resolved[Config], weights: WeightFile | None, num_classes: int, say: Say) -> Architecture:
    config = resolved.options
    if weights is None:
        given = {name: getattr(config, name) for name in _OF_THE_NETWORK}
        return architecture(config.arch, **given, num_classes=num_classes, in_chans=config.in_chans)
    # What the weights say holds, unless the user said otherwise; a recipe that stood in for one says nothing.
    explicit = {name: resolved.explicit(name) for name in ("arch", *_OF_THE_NETWORK)}
    found, notes = complete(weights, ArchitectureHints(**explicit))
    for line in notes:
        say(line)
    return replace(found, num_classes=num_classes)


def _check_shapes(config: Config, arch: Architecture, image_size: int, processes: int) -> None:
    check_image_size(arch, image_size)
    side, shared = image_size // arch.patch_size, processes if config.sync_bn else 1
    if side * side * config.batch_size * shared == 1 and not config.trains_head_alone:
        raise UserError(
            "batch_size: 1 image of 1 patch leaves BatchNorm one value, which has no variance; "
            f"batch_size must be at least 2, or image_size at least {2 * arch.patch_size}"
        )
