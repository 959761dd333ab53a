"""The training loop: step, report, evaluate, save, until the last step or a stop signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from convmixer.distributed.processes import Processes
from convmixer.errors import UserError
from convmixer.metrics.score import Score
from convmixer.training.bad_images import BadImages
from convmixer.training.checkpointing.manager import CheckpointManager
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.error_messages import explain
from convmixer.training.intervals import Intervals
from convmixer.training.loading.train_batch import BatchLoader, TrainBatch
from convmixer.training.logging.progress_reporter import ProgressReporter
from convmixer.training.non_finite import NonFinite
from convmixer.training.signals import Interrupted, Stopped, StopRequest, StopSignals
from convmixer.training.step import TrainStep


@dataclass
class Trainer:
    """A run, put together by `build`.

    `evaluate(interrupted)` gives the whole score, or raises Interrupted soon after `interrupted()` is true.
    """

    state: TrainState
    step: TrainStep
    loader: BatchLoader
    evaluate: Callable[[Callable[[], bool]], Score]
    intervals: Intervals
    checkpoint_manager: CheckpointManager
    report: ProgressReporter
    processes: Processes
    bad_images: BadImages
    debug_nan: bool = False
    patience: int = 0  # evaluations without a better top-1 after which the run ends; 0: never

    def run(self) -> None:
        """Train to the end.

        Raises Stopped after a clean save where a signal came, UserError where the run failed.
        """
        failed = True
        try:
            with StopSignals() as signals:
                self._run(signals)
                self.checkpoint_manager.end()
            failed = False
        except Stopped:
            failed = False
            raise
        except RuntimeError as error:
            explained = explain(
                error,
                self.loader,
                image_size=self.step.augment.preprocessing.size,
                processes=self.processes.count,
                recompute=self.state.model.recompute,
            )
            if explained is None:
                raise
            raise explained from error
        finally:
            self.report.close(failed=failed)
            self.checkpoint_manager.close()

    def _run(self, signals: StopSignals) -> None:
        # A run that was stopped between a step and its evaluation makes up for it first.
        if self._owes_evaluation():
            self._evaluate(signals)
            self.checkpoint_manager.save_checkpoint(self.state)
        if self._has_lost_patience():
            return
        for batches in self.report.timed(self.loader.batches(range(self.state.step, self.intervals.last_step))):
            with self._telling():
                result = self.step(batches)
            if self.report.tells(self.state.step):
                self._check_pending()
            self.report.step(self.state.step, result)
            stop, save = self._agree(signals, batches)
            if stop or save or self._owes_evaluation():
                self._check_pending()
                # A process whose numbers are bad does not come this far, so that no other one saves either.
                self.processes.any(False)
            if not stop and self._owes_evaluation():
                self._evaluate(signals)
                stop = self.processes.any(signals.received is not None)
            if stop or save:
                self.checkpoint_manager.save_checkpoint(self.state)
                self.intervals.saved()
            if stop:
                self._stop(signals)
            if self._has_lost_patience():
                return

    def _has_lost_patience(self) -> bool:
        """Whether the run ends before its last step; says so. All processes have the same score, and find the same."""
        since, step = self.state.evaluations_since_best, self.state.step
        if not 0 < self.patience <= since or step >= self.intervals.last_step:
            return False
        self.report.early_end(step, since, self.patience)
        return True

    def _check_pending(self) -> None:
        """Know of every step so far that its numbers are finite, before something of the state is saved or shown."""
        with self._telling():
            self.step.check_pending()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Within the context, what is known of a step with numbers that are not finite is written down."""
        try:
            yield
        except NonFinite as error:
            self.checkpoint_manager.finish()
            where = self.step.trace_non_finite(error.batches) if self.debug_nan else None
            self.report.non_finite(error, [self.bad_images.name(index) for index in error.indices], where)
            self.checkpoint_manager.save_non_finite(self.state)
            raise

    def _agree(self, signals: StopSignals, batches: list[TrainBatch]) -> tuple[bool, bool]:
        """Whether to stop and whether to save, decided by all processes together; counts unreadable images too."""
        new = self.bad_images.new_in(batches)
        wishes = [signals.received is not None, self.intervals.saves(self.state.step), len(new) > 0]
        stop, save, bad = (total > 0 for total in self.processes.sum([float(wish) for wish in wishes]))
        if bad:
            self.report.bad_images(self.bad_images.add(new))
            self.bad_images.check()
        return stop, save

    def _owes_evaluation(self) -> bool:
        return self.intervals.evaluates(self.state.step) and self.state.evaluated_step != self.state.step

    def _evaluate(self, signals: StopSignals) -> None:
        start = time.monotonic()
        try:
            score = self.evaluate(StopRequest(signals, self.processes))
        except Interrupted:
            self.checkpoint_manager.save_checkpoint(self.state)
            self._stop(signals)
        except UserError:
            # No image can be read: what was learnt is kept, and a resumed run makes up for the evaluation.
            self.checkpoint_manager.save_checkpoint(self.state)
            self.checkpoint_manager.finish()
            raise
        top1 = score.results()["Top1-Acc"]
        best = self.state.best_top1 is None or top1 > self.state.best_top1
        self.state.evaluated_step = self.state.step
        self.state.evaluations_since_best = 0 if best else self.state.evaluations_since_best + 1
        if best:
            before, self.state.best_top1 = self.state.best_top1, top1
            self.checkpoint_manager.save_best(self.state, before)
        self.report.evaluation(self.state.step, score, time.monotonic() - start, best=best)

    def _stop(self, signals: StopSignals) -> None:
        self.checkpoint_manager.end()
        number = max(number or 0 for number in self.processes.gather(signals.received))
        raise Stopped(number, self.state.step, self.checkpoint_manager.latest)
