"""trackio (https://huggingface.co/docs/trackio): a database on this machine, or a Space where TRACKIO_SPACE_ID says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import trackio

from convmixer.training.logging.metric_logger import PROJECT, LoggedRun


class Logger:
    """A run of trackio's, with the run's name; a thread sends. A resumed run goes on in that of its name.

    trackio does not take points back: those of steps that a resumed run makes again stand there twice.
    """

    _run: trackio.Run
    _step = 0

    def open(self, run: LoggedRun) -> str:
        resume = "never" if run.resumed_at is None else "allow"
        self._run = trackio.init(project=PROJECT, name=run.name, config=dict(run.options), resume=resume, embed=False)
        self._step = run.resumed_at or 0
        return f"run {run.name}: trackio show --project {PROJECT}"

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        self._run.log(dict(values), step=step)

    def picture(self, name: str, image: np.ndarray) -> None:
        self._run.log({name: trackio.Image(image)}, step=self._step)

    def close(self, *, failed: bool) -> None:
        trackio.finish()  # by the package: what it does at Python's end would print otherwise
