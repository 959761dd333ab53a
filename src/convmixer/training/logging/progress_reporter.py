"""What a training run tells while it goes: a bar or plain lines on stderr, and the journal."""

from __future__ import annotations

import io
import logging
import time

import numpy as np
from PIL import Image

from convmixer.distributed.processes import Processes
from convmixer.metrics import Score
from convmixer.runs.folders import RunFolders, keep_record
from convmixer.terminal.progress import Progress, duration
from convmixer.training.intervals import Intervals
from convmixer.training.logging.metric_logger import MetricLogger
from convmixer.training.non_finite import NonFinite, described
from convmixer.training.step import StepResult

logger = logging.getLogger(__name__)


class ProgressReporter:
    """Every process calls it at the same steps, since losses are averaged over processes; the first one speaks."""

    def __init__(
        self,
        intervals: Intervals,
        processes: Processes,
        metric_logger: MetricLogger | None,
        *,
        first_step: int,
        step_images: int,
        folders: RunFolders | None = None,
    ) -> None:
        self.folders = folders
        self.intervals, self.processes, self.metric_logger, self.step_images = (
            intervals,
            processes,
            metric_logger,
            step_images,
        )
        self._first_step, self._start = first_step, time.monotonic()
        self._clock, self._clock_step = self._start, first_step
        images = (intervals.last_step - first_step) * step_images
        self._bar = Progress(images, "train", enabled=processes.is_first, plain_lines=False)

    def step(self, step: int, result: StepResult) -> None:
        """After the step that brought the count to `step`."""
        self._bar.add(self.step_images)
        prints, summarises = self.intervals.prints(step), self.intervals.summarises(step)
        if not (prints or summarises):
            return
        loss = self.processes.sum([float(result.loss)])[0] / self.processes.count
        now = time.monotonic()
        rate = (step - self._clock_step) * self.step_images / max(now - self._clock, 1e-9)
        self._clock, self._clock_step = now, step
        epoch = step / self.intervals.steps_per_epoch
        if summarises and self.metric_logger is not None:
            values = {"epoch": round(epoch, 4), "loss": loss, "lr": result.lr, "grad_norm": float(result.grad_norm)}
            self.metric_logger.write(
                "train", step, {**values, "skipped": result.skipped, "images_per_second": round(rate, 1)}
            )
        if prints and self.processes.is_first:
            left = (now - self._start) / (step - self._first_step) * (self.intervals.last_step - step)
            self._bar.label(f"epoch {epoch:.2f}/{self.intervals.epochs} loss {loss:.4f}")
            self._bar.line(
                f"epoch {epoch:.2f}/{self.intervals.epochs}  step {step}/{self.intervals.last_step}  loss {loss:.4f}  "
                f"lr {result.lr:.3g}  grad {float(result.grad_norm):.3g}  {rate:.1f} img/s  {duration(left)} left"
            )

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
        self._clock, self._clock_step = time.monotonic(), step
        if not self.processes.is_first:
            return
        results = score.results()
        if self.metric_logger is not None:
            values = {"epoch": step / self.intervals.steps_per_epoch, **results, "unreadable": len(score.bad)}
            self.metric_logger.write("eval", step, values)
        mark = "  (best so far)" if best else ""
        logger.info(
            f"epoch {step / self.intervals.steps_per_epoch:g}: eval results: {results} in {seconds:.1f} s{mark}"
        )

    def picture(self, images: np.ndarray) -> None:
        """A sheet of images, uint8 [H, W, 3], into the summary: `input.png`, and among the events."""
        if self.metric_logger is not None and self.folders is not None:
            encoded = io.BytesIO()
            Image.fromarray(images).save(encoded, "PNG")
            keep_record(self.folders.summary / "input.png", encoded.getvalue())
            self.metric_logger.picture("input", images)

    def close(self) -> None:
        self._bar.close()
        if self.metric_logger is not None:
            self.metric_logger.close()
