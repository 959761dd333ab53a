"""The network of a run: new or from weights, frozen or not, run in the chosen way, and wrapped for processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convmixer.arch import Architecture, architecture
from convmixer.config.loading import Resolved
from convmixer.config.schema import Config
from convmixer.data.classes import ClassMap
from convmixer.data.order import BatchPlan
from convmixer.distributed import Processes
from convmixer.execution import Execution, Job, build_network, choose_way, ways_asked_for
from convmixer.execution.ways import ways_for
from convmixer.model import ConvMixer
from convmixer.progress import note
from convmixer.train.state import TrainState
from convmixer.weights.load import check, complete, load_into
from convmixer.weights.read import WeightFile, read_weights


def read_start(config: Config) -> WeightFile | None:
    """The weights that a run starts from, where `pretrained` names any."""
    return read_weights(config.pretrained, config.entry) if config.pretrained else None


def create_network(
    resolved: Resolved[Config], weights: WeightFile | None, classes: ClassMap, say: Callable[[str], None] = note
) -> ConvMixer:
    """A ConvMixer for these classes, initialised by the seed, then filled with the weights, if any; on the CPU.

    Its head keeps the rows of classes that the weights know by name. `say` is told what was taken over. Raises
    UserError where weights and options do not fit.
    """
    config = resolved.options
    shape = _architecture(resolved, weights, len(classes), say)
    if weights is not None:
        check(weights, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ConvMixer(shape)
    if weights is not None:
        if not config.exclude_epoch_state:
            say("exclude_epoch_state: pretrained takes over weights only; --resume continues a run")
        say(f"weights from {weights.path} ({weights.source})")
        for line in load_into(model, weights, replace_head=True, classes=classes):
            say(line)
    if config.freeze:
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model


def _architecture(
    resolved: Resolved[Config], weights: WeightFile | None, num_classes: int, say: Callable[[str], None]
) -> Architecture:
    config = resolved.options
    names = ("kernel_size", "patch_size", "activation")
    if weights is None:
        given = {name: getattr(config, name) for name in names}
        return architecture(config.arch, **given, num_classes=num_classes, in_chans=config.in_chans)
    # What the weights say holds, unless the user said otherwise; a recipe that stood in for one says nothing.
    found, notes = complete(weights, resolved.said("arch"), **{name: resolved.said(name) for name in names})
    for line in notes:
        say(line)
    return replace(found, num_classes=num_classes)


def wrap(
    state: TrainState,
    config: Config,
    image_size: int,
    plan: BatchPlan,
    dtype: torch.dtype,
    device: torch.device,
    processes: Processes,
) -> nn.Module:
    """What the step calls: the model run the way that `execution` asks for, in DDP where there are processes.

    Under `auto` a resumed run keeps the way of its checkpoint, where this machine has it. Notes the way in the state.
    Raises UserError, on every process, where what `execution` names is not there.
    """
    model = state.model
    model.recompute = config.recompute
    job = Job(model.arch, image_size, config.batch_size, dtype, True, device, config.recompute)
    execution: Execution = "compile" if config.compile else config.execution
    ways_asked_for(job, execution)
    # Of the whole run, so that it and one that resumes it choose alike.
    images = config.epochs * plan.steps_per_epoch * config.accumulate * config.batch_size
    if config.sync_bn and processes.count > 1:
        # Synchronised BatchNorm waits for all processes: the first cannot try ways alone.
        images = 0
    if execution != "auto" or state.way not in {way.name for way in ways_for(job)}:
        way = choose_way(model, job, images, execution) if processes.is_first else None
        state.way = processes.from_first(way)
    assert state.way is not None
    network = build_network(state.way, model, job, execution, note if processes.is_first else lambda _: None)
    if processes.count > 1:
        ids = [device.index] if device.type == "cuda" else None
        # A bucket rebuild after the first step changes the order of sums between a run and its resumed twin; telling
        # DDP that parameters may be unused keeps the buckets as they are (three Gloo processes differ without it).
        network = DistributedDataParallel(network, device_ids=ids, find_unused_parameters=True)
    return network
