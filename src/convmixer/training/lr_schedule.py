"""The learning rate as a pure function of the optimizer step, so that a resumed run goes on where it stopped. No torch.

The names and formulas are those of the MindSpore model zoo's programs, and `onecycle` is that of ConvMixer's authors
(https://github.com/locuslab/convmixer-cifar10). All of them are continuous: the rate changes at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from convmixer.errors import UserError

ScheduleName = Literal["cosine_lr", "onecycle", "multistep_lr", "exp_lr", "constant_lr"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)

LrScaling = Literal["none", "linear"]
REFERENCE_BATCH = 512


def peak_lr(base_lr: float, global_batch: int, lr_scaling: LrScaling) -> float:
    """The rate at the top of the schedule: `base_lr`, or with `linear` base_lr * global_batch / 512.

    `global_batch`: images an optimizer step, over all processes and accumulated batches. The linear rule is that of
    Goyal et al., 2017 (https://arxiv.org/abs/1706.02677): 0.001 at 4 x 24 images becomes 0.0001875. `warmup_lr` and
    `min_lr` are never scaled.
    """
    return base_lr * global_batch / REFERENCE_BATCH if lr_scaling == "linear" else base_lr


@dataclass(frozen=True, kw_only=True)
class LRSchedule:
    """`schedule(step)`: the learning rate of optimizer step 0, 1, 2, ...; e = step / steps_per_epoch.

    Warm-up, e < warmup_length: a straight line from warmup_lr to base_lr. Neither `min_lr` nor the schedule touches it:
    a warm-up that starts below `min_lr` starts there.

    Afterwards, with E = epochs and never less than `min_lr`:

    * `cosine_lr`: base_lr * 0.5 (1 + cos(pi e / E)), where e and E count from the end of the warm-up, so that the
      cosine starts from base_lr (https://arxiv.org/abs/1608.03983, without restarts). base_lr 0.001, E 300, no
      warm-up: 0.001 at 0, 0.000853553 at 75, 0.0005 at 150, and with min_lr 0.0001 no less than that from 239 on.
    * `onecycle`: straight lines through 0 at 0, base_lr at E * 2 // 5, base_lr / 20 at E * 4 // 5 and 0 at E, taken at
      (step + 1) / steps_per_epoch as the authors do: the first step has a rate above 0, the last one's is 0.
      base_lr 0.05, E 25, 98 steps an epoch: 0.0000510204 at step 0, 0.025 at 489, 0.05 at 979, 0.02625 at 1469,
      0.0025 at 1959, 0 at 2449. Whole epochs leave no rise when E < 3; then the corners are at 2/5 and 4/5 of E.
      `min_lr` lifts both ends, the first steps too.
    * `exp_lr`: base_lr * lr_gamma^e. base_lr 0.1, lr_gamma 0.97: 0.09409 at 2.
    * `multistep_lr`: base_lr * lr_gamma^(e / lr_adjust), without steps in spite of its name, as in the model zoo.
      base_lr 0.1, lr_gamma 0.1, lr_adjust 30: 0.0316228 at 15, 0.01 at 30.
    * `constant_lr`: base_lr.

    All but the cosine go on after the warm-up at the same e, as in the model zoo's family: `exp_lr` and `multistep_lr`
    then step down a little, and `onecycle`, which rises by itself, wants no warm-up.

    Raises UserError when the warm-up leaves nothing of the run.
    """

    name: ScheduleName
    base_lr: float
    warmup_lr: float
    min_lr: float
    warmup_length: float
    epochs: int
    steps_per_epoch: int
    lr_gamma: float
    lr_adjust: float

    def __post_init__(self) -> None:
        assert self.name in SCHEDULES
        assert self.epochs > 0
        assert self.steps_per_epoch > 0
        if self.warmup_length >= self.epochs:
            raise UserError(
                f"warmup_length: {self.warmup_length:g} epochs of warm-up leave nothing of {self.epochs} epochs; "
                "give fewer, or 0 for none."
            )

    def __call__(self, step: int) -> float:
        # Past the last step (a log line after the end) the rate stays as it ended: the cosine would rise again.
        epoch = min(step / self.steps_per_epoch, float(self.epochs))
        if epoch < self.warmup_length:
            return self.warmup_lr + (self.base_lr - self.warmup_lr) * epoch / self.warmup_length
        return max(self.min_lr, self.base_lr * self._factor(epoch))

    def _factor(self, epoch: float) -> float:
        match self.name:
            case "cosine_lr":
                done = (epoch - self.warmup_length) / (self.epochs - self.warmup_length)
                return 0.5 * (1.0 + math.cos(math.pi * done))
            case "onecycle":
                whole = self.epochs >= 3
                after = min(epoch + 1 / self.steps_per_epoch, float(self.epochs))
                top = self.epochs * 2 // 5 if whole else self.epochs * 2 / 5
                foot = self.epochs * 4 // 5 if whole else self.epochs * 4 / 5
                return float(np.interp(after, [0.0, top, foot, self.epochs], [0.0, 1.0, 0.05, 0.0]))
            case "exp_lr":
                return math.pow(self.lr_gamma, epoch)
            case "multistep_lr":
                return math.pow(self.lr_gamma, epoch / self.lr_adjust)
            case "constant_lr":
                return 1.0
