"""The training loop: step, report, evaluate, save, until the last step or a stop signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from convmixer.distributed import Processes
from convmixer.metrics import Score
from convmixer.train.agenda import Agenda
from convmixer.train.feed import HostBatch
from convmixer.train.report import Report
from convmixer.train.saver import Saver
from convmixer.train.state import TrainState
from convmixer.train.step import TrainStep
from convmixer.train.stopping import Stopped, StopSignals


@dataclass
class Trainer:
    """A run, put together by `assembly`; `feed` gives the batches of a range of steps, `evaluate` a whole score."""

    state: TrainState
    step: TrainStep
    feed: Callable[[range], Iterator[list[HostBatch]]]
    evaluate: Callable[[], Score]
    agenda: Agenda
    saver: Saver
    report: Report
    processes: Processes
    image_name: Callable[[int], str]

    def run(self) -> Score | None:
        """Train to the end and return the last evaluation's score.

        Raises Stopped after a clean save where a signal came, UserError where the run failed.
        """
        try:
            with StopSignals() as signals:
                return self._run(signals)
        finally:
            self.report.close()

    def _run(self, signals: StopSignals) -> Score | None:
        # A run that was stopped between a step and its evaluation makes up for it first.
        score = self._evaluate() if self._owes_evaluation() else None
        for batches in self.feed(range(self.state.step, self.agenda.last_step)):
            result = self.step(batches)
            self.report.bad_images([f"{self.image_name(i)}: {why}" for batch in batches for i, why in batch.bad])
            self.report.step(self.state.step, result)
            stopping = self.processes.any(signals.received is not None)
            if not stopping and self._owes_evaluation():
                score = self._evaluate()
                stopping = self.processes.any(signals.received is not None)
            if stopping or self.processes.any(self.agenda.saves(self.state.step)):
                self.saver.save_checkpoint(self.state)
                self.agenda.saved()
            if stopping:
                raise Stopped(max(number or 0 for number in self.processes.gather(signals.received)))
        return score

    def _owes_evaluation(self) -> bool:
        return self.agenda.evaluates(self.state.step) and self.state.evaluated_step != self.state.step

    def _evaluate(self) -> Score:
        start = time.monotonic()
        score = self.evaluate()
        top1 = score.results()["Top1-Acc"]
        best = self.state.best_top1 is None or top1 > self.state.best_top1
        self.state.evaluated_step = self.state.step
        if best:
            self.state.best_top1 = top1
            self.saver.save_best(self.state)
        self.report.evaluation(self.state.step, score, time.monotonic() - start, best=best)
        return score
