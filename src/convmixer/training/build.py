"""A Trainer from a resolved run: makes the network, connects the parts; checks all before it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from convmixer.data.balance import balance_remark
from convmixer.data.folders import ignored_line
from convmixer.machine import cores_of_this_process
from convmixer.model import ConvMixer
from convmixer.training.backend_choice import Backends, run_with
from convmixer.training.bad_images import BadImages
from convmixer.training.checkpointing.resume import Resumed, find_resumable, run_fingerprint
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.error_messages import out_of_memory
from convmixer.training.evaluator import Evaluator
from convmixer.training.loading.create import create_loader
from convmixer.training.loading.data_wait import ReadingBound
from convmixer.training.loading.device_loader import DeviceLoader
from convmixer.training.loading.train_batch import BatchLoader
from convmixer.training.loading.worker_loader import WorkerLoader
from convmixer.training.logging.image_grid import image_grid
from convmixer.training.logging.metric_logger import create_loggers
from convmixer.training.logging.progress_reporter import ProgressReporter
from convmixer.training.loss_scaler import LossScaler
from convmixer.training.network import create_network
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.run_folders import check_room
from convmixer.training.step import OnFirstBatch
from convmixer.training.trainer import Trainer
from convmixer.training.trial import create_state, create_step
from convmixer.training.writers import Locks, open_writers

logger = logging.getLogger(__name__)


def build_trainer(run: ResolvedRun, say: Callable[[str], None] = logger.info) -> Trainer:
    """The run, ready to start or to go on; `say` gets lines on what it is made of.

    Raises UserError for all that does not fit; the run's lock is then given up.
    """
    locks = Locks()
    try:
        return _build(run, say, locks)
    except BaseException:
        locks.release()
        raise


def _build(run: ResolvedRun, say: Callable[[str], None], locks: Locks) -> Trainer:
    config, processes = run.config, run.processes
    loggers = processes.on_first(lambda: create_loggers(config.log_to)) or {}
    fingerprint = run_fingerprint(config, run.data, run.sampler)
    resumed = find_resumable(config, lambda folder: processes.on_first(lambda: locks.claim(folder)))
    before = Backends() if resumed is None else resumed.check(fingerprint, force=config.force_resume)
    model = create_network(run, say)
    loader = create_loader(run, say)
    processes.on_first(lambda: _announce(run, model, loader, resumed))
    network, backends = _run_with(model, run, before)
    state = create_state(run, model, backends)
    if resumed is not None:
        say(resumed.restore(state))
    bound = ReadingBound(loader.workers, cores_of_this_process()) if isinstance(loader, WorkerLoader) else None
    reporter, manager = open_writers(run, state, fingerprint, loggers, locks, resumed, bound)
    return Trainer(
        state,
        create_step(
            run,
            network,
            state,
            frozen_steps=config.unfreeze_epoch * run.sampler.steps_per_epoch,
            on_first_batch=_picture(run, state, reporter),
        ),
        loader,
        Evaluator(run, state),
        run.intervals,
        manager,
        reporter,
        processes,
        BadImages.of(run),
        debug_nan=config.debug_nan,
        patience=config.patience,
    )


def _run_with(model: ConvMixer, run: ResolvedRun, before: Backends) -> tuple[nn.Module, Backends]:
    config, size = run.config, run.data.train_size
    try:
        return run_with(model, run, before)
    except RuntimeError as error:
        user_error = out_of_memory(error, config.batch_size, size, recompute=config.recompute)
        if user_error is None:
            raise
        raise user_error from error


def _picture(run: ResolvedRun, state: TrainState, reporter: ProgressReporter) -> OnFirstBatch | None:
    """What keeps pictures of the first batch, where they are wanted."""
    config, preprocessing = run.config, run.data.train_preprocessing

    def show(images: torch.Tensor, targets: torch.Tensor) -> None:
        if config.collect_input_data:
            reporter.picture(image_grid(images, preprocessing))
        if config.report and state.step == run.intervals.first_step:  # not again where a run goes on
            reporter.first_batch(images, targets, preprocessing)

    wants_picture = (config.collect_input_data or config.report) and run.processes.is_first
    return show if wants_picture else None


def _announce(run: ResolvedRun, model: ConvMixer, loader: BatchLoader, resumed: Resumed | None) -> None:
    """Say what is about to run. Raises UserError (exit 1) where the disk has no room for it."""
    data, sampler, arch = run.data, run.sampler, run.architecture
    count = sum(parameter.numel() for parameter in model.parameters())
    scaling = LossScaler.of(run.config, run.precision).description
    logger.info(
        f"{arch.name}: {count:,} parameters, {arch.activation}, {run.device}, {run.precision.description}; {scaling}"
    )
    logger.info(f"{len(data.train)} training and {len(data.val)} evaluation images of {len(data.classes)} classes")
    if remark := balance_remark(data.train, run.config.balance):
        logger.info(remark)
    if isinstance(loader, DeviceLoader):
        logger.info(f"the training images, {loader.images.nbytes / 1e6:.3g} MB, are kept on {run.device}")
    for split, source in (("training", data.train), ("evaluation", data.val)):
        if ignored := getattr(source, "ignored", None):
            logger.info(ignored_line(ignored, f"the {split} images"))
    peak = run.schedule.peak
    logger.info(
        f"global batch {sampler.global_batch}, {sampler.steps_per_epoch} steps per epoch, peak learning rate {peak:g}"
    )
    if sampler.count < sampler.global_batch:
        logger.warning(
            f"the {sampler.count} training images are fewer than a global batch: each is used several times per step"
        )
    check_room(run.config, resumed, model)
