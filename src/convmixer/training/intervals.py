"""When a run logs, evaluates and saves: questions about a step, answered without state but the clock of the saves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from convmixer.errors import UserError

if TYPE_CHECKING:
    from convmixer.config.schema import Config


class Intervals:
    """`step` counts optimizer steps from the start of epoch 0, also where a run starts at a later epoch.

    Raises UserError for a run that starts where it ends.
    """

    def __init__(self, options: Config, steps_per_epoch: int) -> None:
        if options.start_epoch >= options.epochs:
            raise UserError(f"start_epoch: is {options.start_epoch}, the run has only {options.epochs} epochs")
        self.options, self.steps_per_epoch = options, steps_per_epoch
        self._last_save = time.monotonic()

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.options.epochs

    @property
    def first_step(self) -> int:
        """The step count that the run starts at."""
        return self.options.start_epoch * self.steps_per_epoch

    @property
    def last_step(self) -> int:
        """The step after which the run is done."""
        return self.options.epochs * self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def prints(self, step: int) -> bool:
        return step % self.options.print_loss_every == 0 or step == self.last_step

    def summarises(self, step: int) -> bool:
        return step % self.options.summary_loss_collect_freq == 0 or step == self.last_step

    def evaluates(self, step: int) -> bool:
        if not self.ends_epoch(step):
            return False
        return step == self.last_step or (step // self.steps_per_epoch) % self.options.eval_every == 0

    def saves(self, step: int) -> bool:
        """At the end of every epoch, and every so many steps or seconds beside it."""
        every, seconds = self.options.ckpt_save_every_step, self.options.ckpt_save_every_sec
        by_steps = every > 0 and step % every == 0
        by_clock = 0 < seconds <= time.monotonic() - self._last_save
        return self.ends_epoch(step) or by_steps or by_clock

    def saved(self) -> None:
        """Start the clock of the saves anew."""
        self._last_save = time.monotonic()
