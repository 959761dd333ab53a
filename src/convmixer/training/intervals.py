"""When a run logs, evaluates and saves: questions about a step, answered without state but the clock of the saves."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Intervals:
    """`step` counts optimizer steps from the start of epoch 0, also where a run starts at a later epoch."""

    steps_per_epoch: int
    epochs: int
    eval_every: int = 1
    print_every: int = 50
    summary_every: int = 10
    save_every_steps: int = 0
    save_every_seconds: float = 0.0
    _last_save: float = field(default_factory=time.monotonic)

    @property
    def last_step(self) -> int:
        """The step after which the run is done."""
        return self.epochs * self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def prints(self, step: int) -> bool:
        return step % self.print_every == 0 or step == self.last_step

    def summarises(self, step: int) -> bool:
        return step % self.summary_every == 0 or step == self.last_step

    def evaluates(self, step: int) -> bool:
        if not self.ends_epoch(step):
            return False
        return step == self.last_step or (step // self.steps_per_epoch) % self.eval_every == 0

    def saves(self, step: int) -> bool:
        """At the end of every epoch, and every so many steps or seconds beside it."""
        by_steps = self.save_every_steps > 0 and step % self.save_every_steps == 0
        by_clock = 0 < self.save_every_seconds <= time.monotonic() - self._last_save
        return self.ends_epoch(step) or by_steps or by_clock

    def saved(self) -> None:
        """Start the clock of the saves anew."""
        self._last_save = time.monotonic()
