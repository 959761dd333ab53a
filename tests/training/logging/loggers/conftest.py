"""A run in two parts, as every logger is given it: begun, stopped after a checkpoint at step 2, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convmixer.training.logging.metric_logger import LoggedRun, create_loggers
from convmixer.training.logging.run_metrics import RunMetrics

NAME = "26-11-26_120000_convmixer_8_2"
OPTIONS = {"arch": "convmixer_8_2", "batch_size": 8, "beta": [0.9, 0.999], "resume": None}

LogRun = Callable[..., None]


@pytest.fixture
def log_run(here: Path, capsys: pytest.CaptureFixture[str]) -> LogRun:
    """`log_run("wandb")` logs the first part into the folder `summary`, with `resumed=True` the second.

    Stdout is for answers: nothing may stand there.
    """

    def log(name: str, *, resumed: bool = False, failed: bool = False) -> None:
        folder = here / "summary"
        folder.mkdir(exist_ok=True)
        run = LoggedRun(NAME, folder, OPTIONS, resumed_at=2 if resumed else None)
        metrics = RunMetrics(run, create_loggers([name]))
        if resumed:
            metrics.write("train", 3, {"loss": 0.375})
        else:
            metrics.picture("input", np.full((4, 6, 3), 200, np.uint8))
            for step, loss in ((1, 1.0), (2, 0.5), (3, 0.25)):
                metrics.write("train", step, {"loss": loss, "skipped": False, "note": "text"})
        metrics.write("eval", 3, {"Top1-Acc": 0.75})
        metrics.close(failed=failed)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "the run goes on" not in captured.err

    return log
