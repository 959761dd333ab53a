"""The learning rate as a pure function of the optimizer step, so that a resumed run goes on where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convmixer.data.batch_sampler import BatchSampler
from convmixer.errors import UserError
from convmixer.schedules import SCHEDULES, Position

if TYPE_CHECKING:
    from convmixer.config.optimizer import ScheduleOptions

REFERENCE_BATCH = 512


class LRSchedule:
    """`schedule(step)`: the learning rate of optimizer step 0, 1, 2, ... of a run whose steps `sampler` counts.

    `peak` is `base_lr`, or with `lr_scaling: linear` base_lr * global batch / 512 (Goyal et al., 2017,
    https://arxiv.org/abs/1706.02677): 0.001 at 4 x 24 images becomes 0.0001875. `warmup_lr` and `min_lr` are never
    scaled. With e = step / steps per epoch:

    * warm-up, e < warmup_length: a straight line from warmup_lr to the peak. Neither `min_lr` nor the schedule touches
      it: a warm-up that starts below `min_lr` starts there.
    * afterwards: the peak times the schedule of `schedules.SCHEDULES`, and never less than `min_lr`. All but the cosine
      go on at the same e, as in the model zoo's family: `exp_lr` and `multistep_lr` then step down a little, and
      `onecycle`, which rises by itself, wants no warm-up.

    Raises UserError when the warm-up leaves nothing of the run.
    """

    def __init__(self, options: ScheduleOptions, sampler: BatchSampler) -> None:
        if options.warmup_length >= options.epochs:
            raise UserError(
                f"warmup_length: {options.warmup_length:g} epochs of warm-up leave nothing of {options.epochs} epochs; "
                "give fewer, or 0 for none."
            )
        self.options, self.steps_per_epoch = options, sampler.steps_per_epoch
        self.peak = options.base_lr
        if options.lr_scaling == "linear":
            self.peak = options.base_lr * sampler.global_batch / REFERENCE_BATCH

    def __call__(self, step: int) -> float:
        options = self.options
        # Past the last step (a log line after the end) the rate stays as it ended: the cosine would rise again.
        epoch = min(step / self.steps_per_epoch, float(options.epochs))
        if epoch < options.warmup_length:
            return options.warmup_lr + (self.peak - options.warmup_lr) * epoch / options.warmup_length
        position = Position(
            epoch,
            float(options.epochs),
            options.warmup_length,
            1 / self.steps_per_epoch,
            options.lr_gamma,
            options.lr_adjust,
        )
        return max(options.min_lr, self.peak * SCHEDULES[options.lr_scheduler](position))
