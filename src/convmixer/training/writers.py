"""The two that write what a run leaves: the record of its numbers, and its weights with its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convmixer.runs.lock import RunLock
from convmixer.training.checkpointing.manager import CheckpointManager
from convmixer.training.checkpointing.resume import Resumed
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.loading.data_wait import DataWait, ReadingBound
from convmixer.training.logging.metric_logger import MetricLogger
from convmixer.training.logging.progress_reporter import ProgressReporter
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.run_folders import open_run


class Locks:
    """The lock of a run's checkpoint folder, once `claim` has taken it, which the first process alone does."""

    def __init__(self) -> None:
        self.held: RunLock | None = None

    def claim(self, folder: Path) -> None:
        """Make this run the only one that writes into the folder. Raises UserError where another one does."""
        self.held = RunLock(folder)

    def release(self) -> None:
        if self.held is not None:
            self.held.release()


def open_writers(
    run: ResolvedRun,
    state: TrainState,
    fingerprint: Mapping[str, Any],
    loggers: dict[str, MetricLogger],
    locks: Locks,
    resumed: Resumed | None = None,
    bound: ReadingBound | None = None,
) -> tuple[ProgressReporter, CheckpointManager]:
    """Open the run's folders on the first process, and what writes into them; both do nothing on the others.

    Raises UserError where the folders cannot be made (exit 1) or another process holds them (exit 2).
    """
    config, data, processes = run.config, run.data, run.processes
    opened = processes.on_first(lambda: open_run(run, resumed, state, locks.claim, loggers))
    folders, metrics = opened or (None, None)
    reporter = ProgressReporter(
        run.intervals,
        processes,
        metrics,
        first_step=state.step,
        step_images=run.sampler.global_batch,
        wait=DataWait(run.device),
        val=data.val,
        data_folder=config.data_url,
        bound=bound,
        folders=folders,
    )
    latest = None if resumed is None else resumed.checkpoint
    facts = {} if data.held_out is None else {"held_out": data.held_out.facts()}
    manager = CheckpointManager(
        folders, run.metadata, fingerprint, config.ckpt_keep_num, metrics, latest, locks.held, facts
    )
    return reporter, manager
