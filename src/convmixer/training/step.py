"""One optimizer step: augment, forward, backward over the micro-batches, clip, update, average."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convmixer.augment.pipeline import Augmentation
from convmixer.distributed.processes import Processes
from convmixer.precision import Precision
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.loss import Loss, soft_cross_entropy
from convmixer.training.network import forward_head, training_mode
from convmixer.training.non_finite import FiniteCheck, NonFinite, trace
from convmixer.training.optimizer import honours_found_inf, only_groups_of, set_lr

# What gets a run's first batch as the network does: images [B, C, H, W] and targets [B, K].
OnFirstBatch = Callable[[torch.Tensor, torch.Tensor], None]
# What gives the factors float32 [depth, n] of the residual branches of n images in micro-batch (step, part).
DropPath = Callable[[int, int, int], np.ndarray]

# Where the host runs ahead of the device and must not wait for it: numbers are checked a step later there.
DEFERRED_DEVICES = {"cuda"}


@dataclass(frozen=True)
class StepResult:
    """Loss (mean over the step's images of this process), gradient norm before clipping, learning rate; 0-d tensors."""

    loss: torch.Tensor
    grad_norm: torch.Tensor
    lr: float
    skipped: bool


class TrainStep:
    """Calls `network` (the state's model, perhaps compiled or wrapped for several processes) on a step's batches.

    In the steps before `frozen_steps` only the head learns: the model itself runs, its other parts without gradients
    and in evaluation mode, so that neither weights nor statistics nor moments of theirs change.

    A step with a loss or gradient norm that is not finite raises NonFinite and leaves the state as before its update:
    weights, optimizer, averages, `step`. Only BatchNorm's running statistics, which move in the forward pass, have seen
    its images. On a GPU, with an optimizer that honours `found_inf`, the host does not wait for the device: that error
    comes when the next step has been launched (whose images the running statistics have then seen too), or from
    `check_pending`, which is to be called before the state is saved, evaluated or shown.
    """

    def __init__(
        self,
        network: nn.Module,
        state: TrainState,
        augment: Augmentation,
        precision: Precision,
        schedule: Callable[[int], float],
        *,
        device: torch.device,
        loss: Loss = soft_cross_entropy,
        clip_norm: float | None = None,
        processes: Processes | None = None,
        frozen_steps: int = 0,
        drop_path: DropPath | None = None,
        on_first_batch: OnFirstBatch | None = None,
    ) -> None:
        self.network, self.state, self.augment = network, state, augment
        self.precision, self.schedule, self.device = precision, schedule, device
        self.loss, self.clip_norm, self.processes = loss, clip_norm, processes or Processes()
        self.frozen_steps, self.drop_path = frozen_steps, drop_path
        self._on_first_batch = on_first_batch
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        # A bad step can be left out on the device only by an optimizer that asks whether to.
        self._check = FiniteCheck(deferred=device.type in DEFERRED_DEVICES and honours_found_inf(state.optimizer))

    def __call__(self, batches: list[TrainBatch]) -> StepResult:
        """Train on the micro-batches of step `state.step`. Raises NonFinite for this step or for the one before."""
        state = self.state
        self.training_mode()
        lr = self.schedule(state.step)
        set_lr(state.optimizer, lr)
        if not self.frozen:
            return self._update(batches, lr)
        with only_groups_of(state.optimizer, state.model.head):
            return self._update(batches, lr)

    @property
    def frozen(self) -> bool:
        """Whether the step of now is of the head alone."""
        return self.state.step < self.frozen_steps

    def _update(self, batches: list[TrainBatch], lr: float) -> StepResult:
        state = self.state
        state.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(batch, part, len(batches)) for part, batch in enumerate(batches)]
        if self.frozen:
            self.processes.average([p.grad for p in state.model.head.parameters() if p.grad is not None])
        loss = torch.stack(losses).mean()
        state.scaler.unscale_(state.optimizer)
        limit = self.clip_norm if self.clip_norm is not None else float("inf")
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        skip = None if state.scaler.skips_non_finite else self._check(state.step, loss, grad_norm, batches)
        updated = state.scaler.step(state.optimizer, skip)
        if state.ema is not None and updated:
            state.ema.update(state.model, skip)
        state.step += 1
        self.check_pending(leave=1)
        return StepResult(loss, grad_norm, lr, not updated)

    def check_pending(self, leave: int = 0) -> None:
        """Wait until the numbers of all steps but the last `leave` ones are known to be finite. Raises NonFinite."""
        try:
            self._check.check_pending(leave)
        except NonFinite as error:
            if self.state.ema is not None:
                self.state.ema.updates -= self.state.step - error.step
            self.state.step = error.step
            raise

    def training_mode(self) -> None:
        """Put the network into training mode, all but what is frozen."""
        training_mode(self.network, self.state.model, self.frozen)

    def trace_non_finite(self, batches: list[TrainBatch]) -> str:
        """Run a step's batches once more, without an update, and say where its first non-finite number comes from."""
        model = self.state.model
        for part, batch in enumerate(batches):
            self.training_mode()
            found = trace(model, partial(self._loss, model, batch, part, len(batches)))
            if found is not None:
                return f"micro-batch {part}: {found}"
        return "not seen again: the second pass was finite"

    def _backward(self, batch: TrainBatch, part: int, parts: int) -> torch.Tensor:
        waits = isinstance(self.network, DistributedDataParallel) and part < parts - 1 and not self.frozen
        with self.network.no_sync() if waits else nullcontext():  # type: ignore[operator]
            loss = self._loss(self.network, batch, part, parts)
            self.state.scaler.scale(loss / parts).backward()
        return loss.detach()

    def _loss(self, network: nn.Module, batch: TrainBatch, part: int, parts: int) -> torch.Tensor:
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        # Each micro-batch is mixed by a number of its own.
        images, targets = self.augment(images, labels, batch.indices, batch.epoch, self.state.step * parts + part)
        if self._on_first_batch is not None:
            self._on_first_batch(images, targets)
            self._on_first_batch = None
        with self.precision.autocast():
            logits = self._logits(network, images, part)
        return self.loss(logits, targets)

    def _logits(self, network: nn.Module, images: torch.Tensor, part: int) -> torch.Tensor:
        if self.frozen:
            return forward_head(self.state.model, images)
        if self.drop_path is None:
            logits: torch.Tensor = network(images)
        else:
            factors = torch.from_numpy(self.drop_path(self.state.step, part, len(images)))
            logits = network(images, factors.to(self.device, non_blocking=True))
        return logits
