"""The metrics of a run: metrics.jsonl, which is the truth, and the loggers of `log_to` beside it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from convmixer.errors import first_line
from convmixer.training.logging.metric_logger import LoggedRun, MetricLogger
from convmixer.training.logging.metrics_file import MetricsFile

logger = logging.getLogger(__name__)


class RunMetrics:
    """Opens the loggers for the run. One that fails then or later is dropped with one warning, and the run goes on.

    `keep_bytes`: the length of metrics.jsonl that a resumed run goes on from. What the loggers' libraries print is
    told as details: stdout is for answers.
    """

    def __init__(self, run: LoggedRun, loggers: Mapping[str, MetricLogger], *, keep_bytes: int | None = None) -> None:
        self._file = MetricsFile(run.folder, keep_bytes=keep_bytes)
        self._loggers = dict(loggers)
        for name, one in loggers.items():
            with self._guarded(name):
                seen = one.open(run)
                if seen is not None:
                    logger.info(f"{name}: {seen}")

    @property
    def bytes(self) -> int:
        """Length of metrics.jsonl so far, with what waits for room on the disk."""
        return self._file.size

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line of metrics, of a `kind` of `MetricsFile`; its numbers go to the loggers as `kind/name`."""
        self._file.write(kind, step, values)
        numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        for name, one in list(self._loggers.items()):
            with self._guarded(name):
                one.write(step, numbers)

    def picture(self, name: str, image: np.ndarray) -> None:
        """Show a picture, uint8 [H, W, 3]."""
        for logger_name, one in list(self._loggers.items()):
            with self._guarded(logger_name):
                one.picture(name, image)

    def close(self, *, failed: bool = False) -> None:
        """`failed`: an error ends the run."""
        self._file.close()
        for name, one in list(self._loggers.items()):
            with self._guarded(name):
                one.close(failed=failed)
        self._loggers.clear()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Within the context the logger of that name may do what it wants."""
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                yield
        except Exception as error:  # of any kind: a disk, a network, a library
            self._loggers.pop(name, None)
            why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
            logger.warning(f"{name}: {why}: no more is logged to it; the run goes on")
        for line in printed.getvalue().splitlines():
            logger.debug(f"{name}: {line}")
