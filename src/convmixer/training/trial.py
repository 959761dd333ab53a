"""The state and the step of a run by themselves: what a Trainer is built around, and what is tried before there is one.

A trial writes nothing and shares nothing with the run that follows but the options: the networks of both begin with the
same weights, and every draw is a function of the seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from convmixer.augment.pipeline import Augmentation
from convmixer.backends.autotune.trial import release, wait
from convmixer.data.balance import class_weights
from convmixer.model import ConvMixer
from convmixer.training.backend_choice import Backends
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.ema import Average, Ema
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.loss import create_loss
from convmixer.training.loss_scaler import LossScaler
from convmixer.training.memory_use import peak_of
from convmixer.training.network import create_network, drop_path_factors
from convmixer.training.optimizer import create_optimizer
from convmixer.training.optimizer_average import OptimizerAverage
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.step import OnFirstBatch, TrainStep


def create_state(run: ResolvedRun, model: ConvMixer, backends: Backends) -> TrainState:
    """A new state. Its moments and averages lie in memory as the backend has laid out the parameters."""
    config, first = run.config, run.intervals.first_step
    optimizer = create_optimizer(model, config, head_apart=config.unfreeze_epoch > 0)
    average: Average | None = None
    if config.optimizer_averages:
        average = OptimizerAverage(optimizer, model)
    elif config.with_ema:
        average = Ema(model, config.ema_decay)
    return TrainState(
        model,
        optimizer,
        LossScaler.of(config, run.precision),
        average,
        step=first,
        evaluated_step=first,
        backend=backends.training,
        evaluation_backend=backends.evaluation,
    )


def create_step(
    run: ResolvedRun,
    network: nn.Module,
    state: TrainState,
    *,
    schedule: Callable[[int], float] | None = None,
    frozen_steps: int = 0,
    on_first_batch: OnFirstBatch | None = None,
) -> TrainStep:
    """The run's step over what `network` runs of the state's model; `schedule`: another one than the run's."""
    config, preprocessing, rank = run.config, run.data.train_preprocessing, run.processes.rank
    classes, on_host = len(run.data.classes), run.augments_on_host
    augmentation = Augmentation(config, preprocessing, classes, config.seed, rank, per_image=not on_host)
    weights = class_weights(run.data.train.labels, classes) if config.balance == "weights" else None

    def factors(step: int, part: int, images: int) -> np.ndarray:
        return drop_path_factors(config.drop_path, run.architecture.depth, images, config.seed, step, part, rank)

    return TrainStep(
        network,
        state,
        augmentation,
        run.precision,
        run.schedule if schedule is None else schedule,
        device=run.device,
        loss=create_loss(config, weights, run.device),
        clip_norm=config.clip_grad_norm if config.use_clip_grad_norm else None,
        processes=run.processes,
        frozen_steps=frozen_steps,
        drop_path=factors if config.drop_path > 0 else None,
        on_first_batch=on_first_batch,
    )


@dataclass(frozen=True)
class Trial:
    """A run's network from its beginning, with the state and the step that a Trainer would have."""

    run: ResolvedRun
    state: TrainState
    step: TrainStep

    def pixels(self) -> list[TrainBatch]:
        """The micro-batches of a step, of noise, which lie on the device: always the same."""
        run, size = self.run, self.run.data.train_size
        count, channels, classes = run.config.batch_size, run.preprocessing.channels, len(run.data.classes)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, size, size, channels), dtype=torch.uint8, generator=generator)
        labels, indices = torch.arange(count) % classes, torch.arange(count).numpy()
        batch = TrainBatch(images.to(run.device), labels.to(run.device), indices, 0, [])
        return [batch] * run.config.accumulate

    def peak(self) -> int:
        """Bytes on the device that a step takes at its highest: the second, when the optimizer has its moments."""
        pixels = self.pixels()
        self.step(pixels)
        self.state.optimizer.zero_grad(set_to_none=True)
        return peak_of(lambda: self.step(pixels), self.run.device)

    def images_per_second(self, seconds: float, least: int = 2) -> float:
        """Of steps on `pixels`, by as many as take so many seconds, at least `least`; two before do not count."""
        pixels, device = self.pixels(), self.run.device
        for _ in range(2):
            self.step(pixels)
        wait(device)
        start, count = time.monotonic(), 0
        while count < least or time.monotonic() - start < seconds:
            self.step(pixels)
            count += 1
        wait(device)
        return count * len(pixels) * self.run.config.batch_size / (time.monotonic() - start)


@contextmanager
def trial(
    run: ResolvedRun,
    *,
    schedule: Callable[[int], float] | None = None,
    backends: Callable[[ConvMixer], tuple[nn.Module, Backends]] | None = None,
) -> Iterator[Trial]:
    """Within the context a trial of the run, run eager or as `backends` says; afterwards its memory is free again.

    Its steps are of the whole network, which take most, unless the run trains the head alone to its end.
    Raises UserError for what does not fit, and what torch raises.
    """
    model = create_network(run, lambda _: None)
    network, chosen = (model, Backends()) if backends is None else backends(model)
    state = create_state(run, model, chosen)
    frozen_steps = sys.maxsize if run.config.trains_head_alone else 0
    own = Trial(run, state, create_step(run, network, state, schedule=schedule, frozen_steps=frozen_steps))
    try:
        yield own
    finally:
        del own, state, network, model
        release(run.device)
