"""What a metric logger is: where the numbers of a run go beside its own metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from convmixer.errors import UserError, first_line
from convmixer.packages import needed_for
from convmixer.plugins import module_of
from convmixer.runs.folders import keep_record

PROJECT = "convmixer"


@dataclass(frozen=True)
class LoggedRun:
    """What a logger knows of the run.

    `folder`: the run's summary; `options`: all of the run, as plain values; `resumed_at`: the step that a resumed run
    goes on from, None for a new one.
    """

    name: str
    folder: Path
    options: Mapping[str, Any]
    resumed_at: int | None = None

    def remote_id(self, logger: str) -> str | None:
        """The name by which a service knows this run, None where it does not know it yet."""
        try:
            return self._id_file(logger).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def keep_remote_id(self, logger: str, identity: str) -> None:
        """Put that name into the summary, so that a resumed run goes on under it."""
        keep_record(self._id_file(logger), f"{identity}\n")

    def _id_file(self, logger: str) -> Path:
        return self.folder / f"{logger}_run_id.txt"


class MetricLogger(Protocol):
    """Made before anything of a run is written: it raises UserError where the user must do something first.

    What it raises later ends it, and nothing else: see `run_metrics.RunMetrics`. It is called on the first process
    only, and training waits for it, so that what is slow belongs into the background.
    """

    def open(self, run: LoggedRun) -> str | None:
        """Begin, or go on. Returns in a few words where the metrics can be seen."""
        ...

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by their names, as `train/loss`, after the step that brought the count to `step`."""
        ...

    def picture(self, name: str, image: np.ndarray) -> None:
        """`image`: uint8 [H, W, 3]."""
        ...

    def close(self, *, failed: bool) -> None:
        """`failed`: an error ends the run, which is neither done nor stopped by a signal."""
        ...


def create_loggers(names: Sequence[str]) -> dict[str, MetricLogger]:
    """The loggers that `log_to` names. Raises UserError where one cannot be used, as where its package is missing."""
    return {name: _create(name) for name in names}


def _create(name: str) -> MetricLogger:
    try:
        with needed_for(f"--log_to: {name}"):
            logger: MetricLogger = module_of("training.logging.loggers", name).Logger()
    except UserError:
        raise
    except Exception as error:  # of a package that does not fit to the others, or to its own settings
        raise UserError(f"--log_to: {name} cannot be used: {first_line(error)}") from None
    return logger
