"""A Trainer from options: opens the data, makes the network, connects the parts; checks all before it writes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from convmixer.arch import Architecture, check_image_size
from convmixer.augment.pipeline import Augmentation
from convmixer.augment.settings import AugmentSettings
from convmixer.config.loading import Resolved
from convmixer.config.schema import Config
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.folders import ignored_line
from convmixer.devices import memory_format
from convmixer.distributed.processes import Processes
from convmixer.errors import UserError
from convmixer.inputs import settled
from convmixer.model import ConvMixer
from convmixer.precision import Precision
from convmixer.runs.lock import RunLock
from convmixer.terminal.progress import note
from convmixer.training.checkpointing.manager import CheckpointManager
from convmixer.training.checkpointing.resume import Resumed, find_resumable, run_fingerprint
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.datasets import check_class_count, open_training_data, train_reader
from convmixer.training.ema import Ema
from convmixer.training.error_messages import out_of_memory
from convmixer.training.evaluator import Evaluation
from convmixer.training.intervals import Intervals
from convmixer.training.loading.batch_loader import BatchLoader, WorkerLoader
from convmixer.training.loading.device_loader import DeviceLoader, whole_images
from convmixer.training.logging.image_grid import image_grid
from convmixer.training.logging.progress_reporter import ProgressReporter
from convmixer.training.lr_schedule import LRSchedule, peak_lr
from convmixer.training.network import create_network, read_start, wrap
from convmixer.training.optimizer import create_optimizer
from convmixer.training.run_folders import check_room, open_run
from convmixer.training.step import TrainStep
from convmixer.training.sync_batchnorm import synchronise
from convmixer.training.trainer import Trainer
from convmixer.weights.read import WeightFile


def build_trainer(resolved: Resolved[Config], device: torch.device, processes: Processes, command: str) -> Trainer:
    """The run that the options ask for, ready to start or to go on; `command`, as it was typed, is for its record.

    Raises UserError for all that does not fit.
    """
    return _Assembly(resolved, device, processes, command).trainer()


class _Assembly:
    """The parts of a run while they are put together."""

    def __init__(self, resolved: Resolved[Config], device: torch.device, processes: Processes, command: str) -> None:
        self.resolved, self.config = resolved, resolved.options
        self.device, self.processes, self.command = device, processes, command
        self.lock: RunLock | None = None
        self.say = note if processes.is_first else lambda _: None
        weights = read_start(self.config)
        self.data = open_training_data(resolved, weights, self.say)
        world, accumulate = processes.count, self.config.accumulate
        self.sampler = BatchSampler(len(self.data.train), self.config.batch_size, self.config.seed, world, accumulate)
        self.precision = Precision.of(self.config, device)
        self.schedule = self._schedule()
        self.model = self._model(weights)
        # The weights that a run starts from may have said more than the options did.
        if weights is not None:
            inputs = None if weights.preprocessing is None else self.data.preprocessing
            self.resolved = settled(resolved, self.model.arch, inputs, str(weights.path))
            self.config = self.resolved.options

    def trainer(self) -> Trainer:
        """All of it; the run is left to others where something does not fit."""
        try:
            return self._trainer()
        except BaseException:
            if self.lock is not None:
                self.lock.release()
            raise

    def _trainer(self) -> Trainer:
        config, state = self.config, self.state
        identity = run_fingerprint(config, self.data, self.sampler.global_batch)
        resumed = find_resumable(config, lambda run: self.processes.on_first(lambda: self._claim(run)))
        restored = resumed.restore(state, identity, force=config.force_resume) if resumed is not None else None
        intervals = self._intervals()
        loader = self._loader()
        self.processes.on_first(lambda: self._announce(resumed, restored, loader))
        size, dtype = self.data.preprocessing.size, self.precision.dtype
        try:
            network = wrap(state, config, size, self.sampler, dtype, self.device, self.processes, len(self.data.val))
        except RuntimeError as error:
            told = out_of_memory(error, config.batch_size, size, recompute=config.recompute)
            if told is None:
                raise
            raise told from error
        opened = self.processes.on_first(
            lambda: open_run(self.resolved, self.command, resumed, state, self.data, self.processes.count, self._claim)
        )
        folders, metric_logger = opened or (None, None)
        report = ProgressReporter(
            intervals,
            self.processes,
            metric_logger,
            first_step=state.step,
            step_images=self.sampler.global_batch,
            folders=folders,
        )
        about = {
            "architecture": self.model.arch,
            "classes": self.data.classes,
            "preprocessing": self.data.preprocessing,
        }
        latest = None if resumed is None else resumed.checkpoint
        checkpoint_manager = CheckpointManager(
            folders, about, identity, config.ckpt_keep_num, metric_logger, latest, self.lock
        )
        return Trainer(
            state,
            self._step(network, report),
            loader,
            Evaluation(config, self.data, state, self.precision, self.device, self.processes),
            intervals,
            checkpoint_manager,
            report,
            self.processes,
            self.data.train.name,
            most_bad=int(config.max_bad_share * len(self.data.train)),
            debug_nan=config.debug_nan,
        )

    def _model(self, weights: WeightFile | None) -> ConvMixer:
        check_class_count(self.resolved, self.data.classes)
        model = create_network(self.resolved, weights, self.data.classes, self.say)
        self._check_shapes(model.arch)
        if self.config.sync_bn and self.processes.count > 1:
            synchronise(model, self.device)
        return model.to(self.device).to(memory_format=memory_format(model.arch.kernel_size, self.device))

    def _check_shapes(self, arch: Architecture) -> None:
        config, side = self.config, self.data.preprocessing.size // arch.patch_size
        check_image_size(arch, self.data.preprocessing.size)
        shared = self.processes.count if config.sync_bn else 1
        if side * side * config.batch_size * shared == 1 and not config.freeze:
            raise UserError(
                "batch_size: 1 image of 1 patch leaves BatchNorm one value, which has no variance; "
                f"batch_size must be at least 2, or image_size at least {2 * arch.patch_size}"
            )

    @cached_property
    def state(self) -> TrainState:
        config = self.config
        optimizer = create_optimizer(
            self.model,
            optimizer=config.optimizer,
            lr=config.base_lr,
            beta=config.beta,
            eps=config.eps,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            decay_all=config.decay_all,
        )
        ema = Ema(self.model, config.ema_decay) if config.with_ema else None
        first = config.start_epoch * self.sampler.steps_per_epoch
        return TrainState(self.model, optimizer, self.precision.scaler, ema, step=first, evaluated_step=first)

    def _loader(self) -> BatchLoader:
        config, rank = self.config, self.processes.rank
        reader = train_reader(config, self.data)
        images = whole_images(reader)
        if images is not None:
            return DeviceLoader(images, self.data.train.labels, self.sampler, rank=rank, device=self.device)
        return WorkerLoader(
            reader,
            self.sampler,
            rank=rank,
            workers=config.num_parallel_workers,
            pin=self.device.type == "cuda",
            timeout=config.loader_timeout,
        )

    def _schedule(self) -> LRSchedule:
        config = self.config
        return LRSchedule(
            name=config.lr_scheduler,
            base_lr=peak_lr(config.base_lr, self.sampler.global_batch, config.lr_scaling),
            warmup_lr=config.warmup_lr,
            min_lr=config.min_lr,
            warmup_length=config.warmup_length,
            epochs=config.epochs,
            steps_per_epoch=self.sampler.steps_per_epoch,
            lr_gamma=config.lr_gamma,
            lr_adjust=config.lr_adjust,
        )

    def _intervals(self) -> Intervals:
        config = self.config
        if config.start_epoch >= config.epochs:
            raise UserError(f"start_epoch: is {config.start_epoch}, the run has only {config.epochs} epochs")
        return Intervals(
            self.sampler.steps_per_epoch,
            config.epochs,
            config.eval_every,
            config.print_loss_every,
            config.summary_loss_collect_freq,
            config.ckpt_save_every_step,
            config.ckpt_save_every_sec,
        )

    def _step(self, network: nn.Module, report: ProgressReporter) -> TrainStep:
        config, preprocessing = self.config, self.data.preprocessing
        named = {name: getattr(config, name) for name in AugmentSettings.__dataclass_fields__}
        settings = AugmentSettings(**(named | {"aa_interpolation": config.policy_interpolation}))
        wants_picture = config.collect_input_data and self.processes.is_first
        return TrainStep(
            network,
            self.state,
            Augmentation(settings, preprocessing, len(self.data.classes), config.seed, self.processes.rank),
            self.precision,
            self.schedule,
            device=self.device,
            clip_norm=config.clip_grad_norm if config.use_clip_grad_norm else None,
            frozen=config.freeze,
            on_first_images=(lambda images: report.picture(image_grid(images, preprocessing)))
            if wants_picture
            else None,
        )

    def _tell(self, restored: str | None, loader: BatchLoader) -> None:
        """Say what is about to run."""
        model, data, sampler = self.model, self.data, self.sampler
        count = sum(parameter.numel() for parameter in model.parameters())
        arch = model.arch
        note(f"{arch.name}: {count:,} parameters, {arch.activation}, {self.device}, {self.precision.description}")
        note(f"{len(data.train)} training and {len(data.val)} evaluation images of {len(data.classes)} classes")
        if isinstance(loader, DeviceLoader):
            note(f"the training images, {loader.images.nbytes / 1e6:.3g} MB, are kept on {self.device}")
        for split, source in (("training", data.train), ("evaluation", data.val)):
            if ignored := getattr(source, "ignored", None):
                note(ignored_line(ignored, f"the {split} images"))
        peak = self.schedule.base_lr
        note(
            f"global batch {sampler.global_batch}, {sampler.steps_per_epoch} steps an epoch, peak learning rate {peak:g}"
        )
        if sampler.count < sampler.global_batch:
            note(
                f"the {sampler.count} training images are fewer than a global batch: each is used several times a step"
            )
        if restored is not None:
            note(restored)

    def _claim(self, folder: Path) -> None:
        """Make this run the only one that writes into a run's checkpoint folder, on the first process."""
        self.lock = RunLock(folder)

    def _announce(self, resumed: Resumed | None, restored: str | None, loader: BatchLoader) -> None:
        self._tell(restored, loader)
        check_room(self.config, resumed, self.state)
