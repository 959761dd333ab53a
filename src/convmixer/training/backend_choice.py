"""How a run's network is run, trained and evaluated: by which backends, tried before anything depends on them."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convmixer.backends.autotune.choose import attempts, choose_backend, choose_evaluation_backend, requested_backends
from convmixer.backends.autotune.fallback import build_tried
from convmixer.backends.autotune.trial import try_training
from convmixer.backends.registry import Backend, backends_for, evaluation_backends, find_backend
from convmixer.backends.workload import Workload
from convmixer.distributed.processes import Processes
from convmixer.distributed.waiting import from_first_in_time
from convmixer.model import ConvMixer
from convmixer.training.network import training_mode

if TYPE_CHECKING:
    from convmixer.config.execution import Execution
    from convmixer.training.resolved_run import ResolvedRun

logger = logging.getLogger(__name__)

# Seconds that the others wait for the first process's measurements. No backend is begun after a bound that is far
# shorter (backends.autotune.choose), but one may compile for minutes, and the forms of the kernels are timed before.
MAX_TUNING = 3600.0
# torch's warning of the gradient of a 1 x 1 filter, whose strides may be given in two forms for one and the same
# memory.
_STRIDES_OF_1_X_1 = r"Grad strides do not match bucket view[\s\S]*grad\.sizes\(\) = \[\d+, \d+, 1, 1\]"


@dataclass(frozen=True)
class Backends:
    """Full names of the backends that train and evaluate the network of a run; None: not chosen yet."""

    training: str | None = None
    evaluation: str | None = None


def run_with(model: ConvMixer, run: ResolvedRun, before: Backends) -> tuple[nn.Module, Backends]:
    """What the step calls: the model, run as `execution` asks for, in DDP where there are processes.

    A backend that is not eager has then made a forward and a backward pass of the run's size; where they failed,
    another one runs, on all processes, and the model is as it was, but for the layout of its parameters in memory. A
    resumed run keeps those of its checkpoint, `before`, where this machine has them and `execution` allows them. Raises
    UserError, on every process, where what `execution` names is not there or fails, and what torch raises of too
    little memory.
    """
    processes, workload, execution = run.processes, training_workload(run), run.config.requested_execution
    requested_backends(workload, execution)
    names = from_first_in_time(processes, "backends", lambda: _choose(model, run, before), MAX_TUNING)
    say = logger.info if processes.is_first else lambda _: None
    tried = attempts(names[0], workload, execution, say)
    set_mode = partial(training_mode, model=model, frozen=run.config.trains_head_alone)
    network = build_tried(
        tried,
        model,
        lambda network: try_training(network, model, workload, set_mode),
        partial(_first_failure, processes),
    )
    chosen = Backends(tried.backend.full_name, names[1])
    return (_in_processes(network, run) if processes.count > 1 else network), chosen


def _in_processes(network: nn.Module, run: ResolvedRun) -> nn.Module:
    ids = [run.device.index] if run.device.type == "cuda" else None
    warnings.filterwarnings("ignore", message=_STRIDES_OF_1_X_1)
    # A bucket rebuild after the first step changes the order of sums between a run and its resumed twin; telling
    # DDP that parameters may be unused keeps the buckets as they are (three Gloo processes differ without it).
    return DistributedDataParallel(network, device_ids=ids, find_unused_parameters=True)


def training_workload(run: ResolvedRun) -> Workload:
    """A step of training."""
    config = run.config
    return Workload(
        run.architecture,
        run.data.train_size,
        config.batch_size,
        run.precision.dtype,
        True,
        run.device,
        config.recompute,
        config.drop_path > 0,
    )


def evaluation_workload(run: ResolvedRun) -> Workload:
    """A batch of an evaluation between the steps of training."""
    size, batch = run.preprocessing.size, run.config.batch_size
    return Workload(run.architecture, size, batch, run.precision.dtype, False, run.device)


def _choose(model: ConvMixer, run: ResolvedRun, before: Backends) -> tuple[str, str]:
    """Full names of the backends of training and of evaluating in each process."""
    config, count, workload, execution = (
        run.config,
        run.processes.count,
        training_workload(run),
        run.config.requested_execution,
    )
    training, evaluation = before.training, before.evaluation
    if workload.drop_path:
        logger.info("drop_path: training runs eager, the other backends have no drop path")
    # Of the whole run, so that it and one that resumes it choose alike.
    images = config.epochs * run.sampler.steps_per_epoch * config.accumulate * config.batch_size
    if config.sync_bn and count > 1:
        # Synchronised BatchNorm waits for all processes in training: the first cannot try backends alone.
        images = 0
    if training is None or not _keeps(training, backends_for(workload), workload, execution):
        training = choose_backend(model, workload, images, execution)
    between = evaluation_workload(run)
    if evaluation is None or not _keeps(evaluation, evaluation_backends(between), between, execution):
        times = -(-config.epochs // config.eval_every)
        evaluation = choose_evaluation_backend(model, between, -(-len(run.data.val) // count), times, execution)
    return training, evaluation


def _keeps(name: str, backends: list[Backend], workload: Workload, execution: Execution) -> bool:
    backend = find_backend(name, backends, workload)
    return backend is not None and execution in ("auto", backend.kind)


def _first_failure(processes: Processes, why: str | None) -> str | None:
    return next((found for found in processes.gather(why) if found is not None), None)
