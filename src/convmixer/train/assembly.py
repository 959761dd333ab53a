"""A Trainer from options: opens the data, makes the network, connects the parts; checks all before it writes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import torch

from convmixer.augment.pipeline import Augmentation
from convmixer.augment.settings import AugmentSettings
from convmixer.config.loading import Resolved
from convmixer.config.schema import Config
from convmixer.data.order import BatchPlan
from convmixer.distributed import Processes
from convmixer.errors import UserError
from convmixer.evaluate import evaluate
from convmixer.metrics import Score
from convmixer.progress import Progress, note
from convmixer.runs import RunFolders, create_run, write_provenance
from convmixer.runtime.devices import memory_format
from convmixer.runtime.torch_runtime import TorchRuntime
from convmixer.train.agenda import Agenda
from convmixer.train.data import TrainingData, class_count, open_training_data, train_reader
from convmixer.train.ema import Ema
from convmixer.train.feed import HostBatch, training_batches
from convmixer.train.journal import Journal
from convmixer.train.network import create_network, wrap
from convmixer.train.optimizer import create_optimizer
from convmixer.train.precision import Precision
from convmixer.train.report import Report
from convmixer.train.resume import Resumed, find_resumable
from convmixer.train.saver import Saver
from convmixer.train.schedulers import Schedule, peak_lr
from convmixer.train.state import TrainState
from convmixer.train.step import TrainStep
from convmixer.train.trainer import Trainer


def build_trainer(resolved: Resolved[Config], device: torch.device, processes: Processes) -> Trainer:
    """The run that the options ask for, ready to start or to go on. Raises UserError for all that does not fit."""
    config = resolved.options
    data = open_training_data(config)
    model = create_network(resolved, class_count(resolved, data.classes))
    if model.arch.in_chans != data.preprocessing.channels:
        raise UserError(f"in_chans: the weights take {model.arch.in_chans} channels, the options say {config.in_chans}")
    resumed = find_resumable(config)
    model.to(device).to(memory_format=memory_format(model.arch.kernel_size, device))
    plan = BatchPlan(len(data.train), config.batch_size, config.seed, processes.count, config.accumulate)
    precision = _precision(config, device)
    optimizer = create_optimizer(
        model,
        optimizer=config.optimizer,
        lr=config.base_lr,
        beta=config.beta,
        eps=config.eps,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    ema = Ema(model, config.ema_decay) if config.with_ema else None
    state = TrainState(model, optimizer, precision.scaler, ema, step=config.start_epoch * plan.steps_per_epoch)
    identity = {"arch": config.arch, "classes": data.classes.fingerprint, "data": data.fingerprint()}
    if resumed is not None:
        resumed.restore(state, identity)
    step = TrainStep(
        wrap(model, config, device, processes),
        state,
        _augmentation(config, data, processes),
        precision,
        _schedule(config, plan),
        device=device,
        clip_norm=config.clip_grad_norm if config.use_clip_grad_norm else None,
        frozen=config.freeze,
    )
    agenda = _agenda(config, plan)
    _tell(config, data, plan, state, precision, device, processes)
    folders, journal = _open_run(resolved, data, state, resumed, processes)
    about = {"architecture": model.arch, "classes": data.classes, "preprocessing": data.preprocessing}
    return Trainer(
        state,
        step,
        _feed(config, data, plan, device, processes),
        _evaluation(config, data, state, precision, device, processes),
        agenda,
        Saver(folders, about, identity, config.ckpt_keep_num, journal, None if resumed is None else resumed.checkpoint),
        Report(agenda, processes, journal, first_step=state.step, step_images=plan.global_batch),
        processes,
        data.train.name,
    )


def _precision(config: Config, device: torch.device) -> Precision:
    return Precision.resolve(
        config.amp_level, config.amp_dtype, config.keep_bn_fp32, device, config.is_dynamic_loss_scale, config.loss_scale
    )


def _augmentation(config: Config, data: TrainingData, processes: Processes) -> Augmentation:
    settings = AugmentSettings(**{name: getattr(config, name) for name in AugmentSettings.__dataclass_fields__})
    return Augmentation(settings, data.preprocessing, len(data.classes), config.seed, processes.rank)


def _schedule(config: Config, plan: BatchPlan) -> Schedule:
    return Schedule(
        name=config.lr_scheduler,
        base_lr=peak_lr(config.base_lr, plan.global_batch, config.lr_scaling),
        warmup_lr=config.warmup_lr,
        min_lr=config.min_lr,
        warmup_length=config.warmup_length,
        epochs=config.epochs,
        steps_per_epoch=plan.steps_per_epoch,
        lr_gamma=config.lr_gamma,
        lr_adjust=config.lr_adjust,
    )


def _agenda(config: Config, plan: BatchPlan) -> Agenda:
    if config.start_epoch >= config.epochs:
        raise UserError(f"start_epoch: is {config.start_epoch}, the run has only {config.epochs} epochs")
    return Agenda(
        plan.steps_per_epoch,
        config.epochs,
        config.eval_every,
        config.print_loss_every,
        config.summary_loss_collect_freq,
        config.ckpt_save_every_step,
        config.ckpt_save_every_sec,
    )


def _feed(
    config: Config, data: TrainingData, plan: BatchPlan, device: torch.device, processes: Processes
) -> Callable[[range], Iterator[list[HostBatch]]]:
    def feed(steps: range) -> Iterator[list[HostBatch]]:
        return training_batches(
            train_reader(config, data),
            plan,
            steps,
            rank=processes.rank,
            workers=config.num_parallel_workers,
            pin=device.type == "cuda",
        )

    return feed


def _evaluation(
    config: Config,
    data: TrainingData,
    state: TrainState,
    precision: Precision,
    device: torch.device,
    processes: Processes,
) -> Callable[[], Score]:
    """Evaluates the averaged weights where there are any, on all processes, to one exact score."""
    runtime = TorchRuntime(state.model, data.preprocessing, device, precision.autocast)

    def run() -> Score:
        with nullcontext() if state.ema is None else state.ema.applied(state.model):
            # DDP keeps the first process's BatchNorm statistics; the average has its own on each.
            processes.copy_from_first(list(state.model.buffers()))
            total = len(data.val)
            with Progress(total, "evaluate", enabled=processes.is_first, plain_lines=False) as progress:
                score = evaluate(
                    runtime,
                    data.val,
                    data.preprocessing,
                    batch_size=config.batch_size,
                    threads=config.num_parallel_workers,
                    part=processes.part,
                    on_batch=lambda count: progress.add(count * processes.count),
                )
        return Score.merged(processes.gather(score))

    return run


def _tell(
    config: Config,
    data: TrainingData,
    plan: BatchPlan,
    state: TrainState,
    precision: Precision,
    device: torch.device,
    processes: Processes,
) -> None:
    """Say what is about to run, on the first process."""
    if not processes.is_first:
        return
    model = state.model
    count = sum(parameter.numel() for parameter in model.parameters())
    peak = peak_lr(config.base_lr, plan.global_batch, config.lr_scaling)
    note(f"{model.arch.name}: {count:,} parameters, {model.arch.activation}, {device}, {precision.description}")
    note(f"{len(data.train)} training and {len(data.val)} evaluation images of {len(data.classes)} classes")
    note(f"global batch {plan.global_batch}, {plan.steps_per_epoch} steps an epoch, peak learning rate {peak:g}")
    if plan.count < plan.global_batch:
        note(f"the {plan.count} training images are fewer than a global batch: each is used several times a step")


def _open_run(
    resolved: Resolved[Config],
    data: TrainingData,
    state: TrainState,
    resumed: Resumed | None,
    processes: Processes,
) -> tuple[RunFolders | None, Journal | None]:
    """The run's folders and journal, on the first process."""
    if not processes.is_first:
        return None, None
    if resumed is None:
        folders = create_run(resolved.options, datetime.now())
        journal = Journal(folders.summary)
    else:
        folders = resumed.folders
        for path in (folders.summary, folders.checkpoints, folders.best):
            path.mkdir(parents=True, exist_ok=True)
        journal = Journal(folders.summary, keep_bytes=state.log_bytes, purge_step=state.step)
    facts = {"processes": processes.count, "images": [len(data.train), len(data.val)]}
    argv = [Path(sys.argv[0]).name, *resolved.argv]
    write_provenance(folders.summary, resolved, argv, data.classes.names, facts)
    note(f"run {folders.name}: {folders.summary}")
    return folders, journal
