"""What a training run tells while it goes: a bar or plain lines on stderr, and the metrics."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import Source
from convmixer.distributed.processes import Processes
from convmixer.metrics.score import Score
from convmixer.metrics.tables import PREDICTIONS, answers_as_csv, summary
from convmixer.runs.folders import RunFolders, keep_record
from convmixer.terminal.progress import Progress, duration
from convmixer.training.intervals import Intervals
from convmixer.training.loading.data_wait import DataWait, ReadingBound
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.logging.image_grid import keep_first_batch
from convmixer.training.logging.run_metrics import RunMetrics
from convmixer.training.non_finite import NonFinite, described
from convmixer.training.step import StepResult

logger = logging.getLogger(__name__)


class ProgressReporter:
    """Every process calls it at the same steps, since losses are averaged over processes; the first one speaks."""

    def __init__(
        self,
        intervals: Intervals,
        processes: Processes,
        metrics: RunMetrics | None,
        *,
        first_step: int,
        step_images: int,
        wait: DataWait,
        val: Source,
        data_folder: str | None = None,
        bound: ReadingBound | None = None,
        folders: RunFolders | None = None,
    ) -> None:
        self._wait, self._bound = wait, bound
        self._val, self._data_folder = val, data_folder
        self.metrics, self.folders = metrics, folders
        self.intervals, self.processes, self.step_images = intervals, processes, step_images
        self._first_step, self._start = first_step, time.monotonic()
        self._clock, self._clock_step = self._start, first_step
        images = (intervals.last_step - first_step) * step_images
        self._losses: list[float] = []
        self._epoch_start = self._start, first_step
        self._bar = Progress(images, "train", enabled=processes.is_first, plain_lines=False)

    def timed(self, batches: Iterator[list[TrainBatch]]) -> Iterator[list[TrainBatch]]:
        """The batches of a run, while it is measured how long the device waits for them."""
        return self._wait.measured(batches)

    def tells(self, step: int) -> bool:
        """Whether the numbers of that step are shown or written; they are waited for."""
        return self.intervals.prints(step) or self.intervals.summarises(step) or self.intervals.ends_epoch(step)

    def step(self, step: int, result: StepResult) -> None:
        """After the step that brought the count to `step`."""
        self._bar.add(self.step_images)
        if not self.tells(step):
            return
        waited = self._wait.take()
        loss, all_waited = (part / self.processes.count for part in self.processes.sum([float(result.loss), waited]))
        now = time.monotonic()
        seconds, images = max(now - self._clock, 1e-9), (step - self._clock_step) * self.step_images
        rate, share = images / seconds, min(all_waited / seconds, 1.0)
        self._clock, self._clock_step = now, step
        epoch = step / self.intervals.steps_per_epoch
        self._losses.append(loss)
        if self.intervals.ends_epoch(step):
            self._epoch_line(step, result.lr)
        if self.intervals.summarises(step) and self.metrics is not None:
            values = {
                "epoch": round(epoch, 4),
                "loss": loss,
                "lr": result.lr,
                "grad_norm": float(result.grad_norm),
                "skipped": result.skipped,
                "images_per_second": round(rate, 1),
                "data_wait": round(share, 4),
            }
            self.metrics.write("train", step, values)
        if self.intervals.prints(step) and self.processes.is_first:
            left = (now - self._start) / (step - self._first_step) * (self.intervals.last_step - step)
            self._bar.label(f"epoch {epoch:.2f}/{self.intervals.epochs} loss {loss:.4f}")
            self._bar.line(
                f"epoch {epoch:.2f}/{self.intervals.epochs}  step {step}/{self.intervals.last_step}  loss {loss:.4f}  "
                f"lr {result.lr:.3g}  grad {float(result.grad_norm):.3g}  {rate:.1f} img/s  "
                f"data wait {share:.0%}  {duration(left)} left"
            )
            line = None if self._bound is None else self._bound.add(images // self.processes.count, seconds, waited)
            if line is not None:
                logger.info(line)

    def _epoch_line(self, step: int, lr: float) -> None:
        """One line per epoch, which stays where a bar goes."""
        now, (start, first) = time.monotonic(), self._epoch_start
        rate = (step - first) * self.step_images / max(now - start, 1e-9)
        epoch, loss = step // self.intervals.steps_per_epoch, sum(self._losses) / len(self._losses)
        self._losses, self._epoch_start = [], (now, step)
        if self.processes.is_first:
            logger.info(f"epoch {epoch}/{self.intervals.epochs}: mean loss {loss:.4f}, lr {lr:.3g}, {rate:.1f} img/s")

    def non_finite(self, error: NonFinite, names: list[str], where: str | None) -> None:
        """A step with a loss that is not finite: its images, and the layer where that is known, go to the summary."""
        if where is not None:
            logger.warning(f"step {error.step}: {where}")
        if self.folders is not None:
            path = self.folders.summary / f"non_finite_step_{error.step:08d}.json"
            keep_record(path, described(error, names, where))

    def bad_images(self, names: list[str]) -> None:
        """Images of a batch that could not be read, as `name: reason`."""
        for name in names:
            logger.warning(f"skipped {name}")

    def evaluation(self, step: int, score: Score, seconds: float, *, best: bool) -> None:
        """The result of an evaluation, which is not training time."""
        self._clock, self._clock_step = self._epoch_start = time.monotonic(), step
        self._wait.take()
        if not self.processes.is_first:
            return
        results, epoch = score.results(), step / self.intervals.steps_per_epoch
        if self.metrics is not None:
            values = {"epoch": epoch, **results, **summary(score, len(self._val.classes)), "unreadable": len(score.bad)}
            self.metrics.write("eval", step, values)
        if best and self.folders is not None:
            keep_record(self.folders.summary / PREDICTIONS, answers_as_csv(score, self._val, self._data_folder))
        mark = "  (best so far)" if best else ""
        logger.info(f"epoch {epoch:g}: eval results: {results} in {seconds:.1f} s{mark}")

    def early_end(self, step: int, evaluations: int, patience: int) -> None:
        """So many evaluations without a better one end the run at that step, before its last."""
        if not self.processes.is_first:
            return
        epoch = step / self.intervals.steps_per_epoch
        if self.metrics is not None:
            values = {"epoch": epoch, "reason": "patience", "evaluations_since_best": evaluations}
            self.metrics.write("end", step, values)
        logger.info(
            f"epoch {epoch:g} of {self.intervals.epochs}: the run ends early, evaluations without a better top-1: "
            f"{evaluations} (--patience {patience}; --resume with a higher one, or 0, trains on)"
        )

    def picture(self, images: np.ndarray) -> None:
        """A grid of images, uint8 [H, W, 3], into the summary as `input.png`, and among the metrics."""
        if self.metrics is not None and self.folders is not None:
            encoded = io.BytesIO()
            Image.fromarray(images).save(encoded, "PNG")
            keep_record(self.folders.summary / "input.png", encoded.getvalue())
            self.metrics.picture("input", images)

    def first_batch(self, images: torch.Tensor, targets: torch.Tensor, preprocessing: Preprocessing) -> None:
        """Keep what the first batch looks like, for the report: normalised images [N, C, H, W], targets [N, K]."""
        if self.folders is not None:
            keep_first_batch(self.folders.summary, images, targets, preprocessing, self._val.classes.names)

    def close(self, *, failed: bool) -> None:
        """`failed`: an error ends the run, which is neither done nor stopped by a signal."""
        self._bar.close()
        if self.metrics is not None:
            self.metrics.close(failed=failed)
