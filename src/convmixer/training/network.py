"""The network of a run: new or from weights, frozen or not, run in the chosen way, and wrapped for processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convmixer.arch import Architecture, architecture
from convmixer.backends.autotune.choose import (
    Execution,
    attempts,
    choose_backend,
    choose_evaluation_backend,
    requested_backends,
)
from convmixer.backends.autotune.fallback import build_tried
from convmixer.backends.autotune.trial import try_training
from convmixer.backends.registry import Backend, backends_for, evaluation_backends, find_backend
from convmixer.backends.workload import Workload
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.classes import ClassMap
from convmixer.distributed.processes import Processes
from convmixer.distributed.waiting import from_first_in_time
from convmixer.model import ConvMixer
from convmixer.terminal.progress import note
from convmixer.training.checkpointing.state import TrainState
from convmixer.weights.load import check, complete, load_into
from convmixer.weights.read import WeightFile, read_weights

if TYPE_CHECKING:  # a step itself needs no options, nor what checks them
    from convmixer.config.loading import Resolved
    from convmixer.config.schema import Config


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
    found, notes = complete(weights, resolved.explicit("arch"), **{name: resolved.explicit(name) for name in names})
    for line in notes:
        say(line)
    return replace(found, num_classes=num_classes)


def wrap(
    state: TrainState,
    config: Config,
    image_size: int,
    sampler: BatchSampler,
    dtype: torch.dtype,
    device: torch.device,
    processes: Processes,
    evaluated: int = 0,
) -> nn.Module:
    """What the step calls: the model run the way that `execution` asks for, in DDP where there are processes.

    One that is not eager has then made a forward and a backward pass of the job's size; where they failed, another way
    runs, on all processes, and the model is as it was. A resumed run keeps the ways of its checkpoint, where this
    machine has them and `execution` allows them. Notes in the state how the network is trained, and how it is evaluated
    on `evaluated` images. Raises UserError, on every process, where what `execution` names is not there or fails, and
    what torch raises of too little memory.
    """
    model = state.model
    workload = Workload(model.arch, image_size, config.batch_size, dtype, True, device, config.recompute)
    execution = _execution(config)
    requested_backends(workload, execution)
    say = note if processes.is_first else lambda _: None
    state.backend, state.evaluation_backend = from_first_in_time(
        processes,
        "ways",
        lambda: _backends(state, config, workload, sampler, evaluated, processes.count),
        LONGEST_TUNING,
    )
    assert state.backend is not None
    tried = attempts(state.backend, workload, execution, say)
    set_mode = partial(training_mode, model=model, frozen=config.freeze)
    network = build_tried(
        tried,
        model,
        lambda network: try_training(network, model, workload, set_mode),
        partial(_first_failure, processes),
    )
    state.backend = tried.backend.full_name
    if processes.count > 1:
        ids = [device.index] if device.type == "cuda" else None
        warnings.filterwarnings("ignore", message=_STRIDES_OF_1_X_1)
        # A bucket rebuild after the first step changes the order of sums between a run and its resumed twin; telling
        # DDP that parameters may be unused keeps the buckets as they are (three Gloo processes differ without it).
        network = DistributedDataParallel(network, device_ids=ids, find_unused_parameters=True)
    return network


def evaluation_workload(
    config: Config, model: ConvMixer, image_size: int, dtype: torch.dtype, device: torch.device
) -> Workload:
    """An evaluation between the steps of training."""
    return Workload(model.arch, image_size, config.batch_size, dtype, False, device)


def training_mode(network: nn.Module, model: ConvMixer, frozen: bool) -> None:
    """Put the network that runs a model into training mode, all but what is frozen."""
    network.train()
    if frozen:
        # Frozen BatchNorm keeps its statistics too: the features stay those that were trained.
        model.stem.eval()
        model.blocks.eval()


# torch's warning of the gradient of a 1 x 1 filter, whose strides may be told in two ways for one and the same memory.
_STRIDES_OF_1_X_1 = r"Grad strides do not match bucket view[\s\S]*grad\.sizes\(\) = \[\d+, \d+, 1, 1\]"
# Seconds that the others wait for the first process's measurements. No way is begun after a bound that is far shorter
# (execution.choice), but one may compile for minutes, and the forms of the kernels are timed before.
LONGEST_TUNING = 3600.0


def _execution(config: Config) -> Execution:
    return "compile" if config.compile else config.execution


def _backends(
    state: TrainState, config: Config, workload: Workload, sampler: BatchSampler, evaluated: int, count: int
) -> tuple[str | None, str | None]:
    """Full names of the ways of training and of evaluating in each of `count` processes."""
    model, execution = state.model, _execution(config)
    backend, evaluation_backend = state.backend, state.evaluation_backend
    # Of the whole run, so that it and one that resumes it choose alike.
    images = config.epochs * sampler.steps_per_epoch * config.accumulate * config.batch_size
    if config.sync_bn and count > 1:
        # Synchronised BatchNorm waits for all processes in training: the first cannot try ways alone.
        images = 0
    if not _keeps(backend, backends_for(workload), workload, execution):
        backend = choose_backend(model, workload, images, execution)
    evaluation = evaluation_workload(config, model, workload.image_size, workload.dtype, workload.device)
    if not _keeps(evaluation_backend, evaluation_backends(evaluation), evaluation, execution):
        times = -(-config.epochs // config.eval_every)
        evaluation_backend = choose_evaluation_backend(model, evaluation, -(-evaluated // count), times, execution)
    return backend, evaluation_backend


def _keeps(name: str | None, backends: list[Backend], workload: Workload, execution: Execution) -> bool:
    backend = None if name is None else find_backend(name, backends, workload)
    return backend is not None and execution in ("auto", backend.kind)


def _first_failure(processes: Processes, why: str | None) -> str | None:
    return next((found for found in processes.gather(why) if found is not None), None)
