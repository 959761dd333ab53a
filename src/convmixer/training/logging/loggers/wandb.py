"""Weights & Biases (https://docs.wandb.ai). Its own variables hold: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE ..."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Read when it is imported: it would report its own errors to its makers, which nobody has asked for.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
import wandb

from convmixer.errors import UserError
from convmixer.training.logging.metric_logger import PROJECT, LoggedRun

_FINISH_SECONDS = 60.0  # for what is not sent yet at the end; the rest stays in the run's summary for `wandb sync`


class Logger:
    """A run of wandb's, with the run's name; its files lie in the run's summary. A background process sends.

    A resumed run goes on in it. The step is a value that the curves are drawn over, not wandb's own count: that never
    goes back, and would leave out an evaluation that a resumed run makes up for.
    """

    _run: wandb.Run

    def __init__(self) -> None:
        settings = wandb.setup(wandb.Settings(silent=True)).settings
        if settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise UserError("--log_to: wandb has no API key; `wandb login` keeps one, WANDB_MODE=offline needs none")

    def open(self, run: LoggedRun) -> str:
        known = run.remote_id("wandb")
        identity = known or uuid.uuid4().hex[:16]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=identity,
            resume=None if known is None else "allow",
            reinit="create_new",  # whoever trains from Python may have a run of their own open
            dir=str(run.folder),
            config=dict(run.options),
            allow_val_change=True,
            # It would read the run's own output, and write its own among it.
            settings=wandb.Settings(console="off", silent=True, finish_timeout=_FINISH_SECONDS),
        )
        if known is None:
            run.keep_remote_id("wandb", identity)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        return f"offline, for wandb sync {Path(self._run.dir).parent}" if self._run.offline else str(self._run.url)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def picture(self, name: str, image: np.ndarray) -> None:
        self._run.log({name: wandb.Image(image)})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
