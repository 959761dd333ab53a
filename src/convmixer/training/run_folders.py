"""Opening a run's folders, of a new run or one that goes on: room, lock, metrics, and what is recorded at the start."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from torch import nn

from convmixer.config.schema import Config
from convmixer.data.holdout import RECORD
from convmixer.distributed.processes import run_time
from convmixer.errors import RUN_FAILED, UserError
from convmixer.run_names import TIME_FORMAT
from convmixer.runs.folders import RunFolders, create_run, keep_record, reopen_run, write_provenance
from convmixer.training.checkpointing.resume import Resumed
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.logging.image_grid import graph_text
from convmixer.training.logging.metric_logger import LoggedRun, MetricLogger
from convmixer.training.logging.run_metrics import RunMetrics
from convmixer.training.resolved_run import ResolvedRun

logger = logging.getLogger(__name__)


def open_run(
    run: ResolvedRun,
    resumed: Resumed | None,
    state: TrainState,
    claim: Callable[[Path], None],
    loggers: Mapping[str, MetricLogger],
) -> tuple[RunFolders, RunMetrics]:
    """The folders and the metrics of a run. `claim` locks the checkpoint folder of a new one.

    Raises UserError where the folders cannot be made (exit 1) or another process holds them (exit 2).
    """
    config, data = run.config, run.data
    if resumed is None:
        folders = create_run(config, run_time() or datetime.now().strftime(TIME_FORMAT))
        claim(folders.checkpoints)
        resumed_at = keep_bytes = None
    else:
        folders = resumed.folders
        reopen_run(folders)
        resumed_at, keep_bytes = state.step, state.log_bytes
    facts = {"processes": run.processes.count, "images": [len(data.train), len(data.val)]}
    write_provenance(folders.summary, run.resolved, run.command, data.classes.names, facts)
    if data.held_out is not None:
        split = data.held_out.csv()
        for folder in (folders.summary, folders.checkpoints, folders.best):
            keep_record(folder / RECORD, split)
    if config.dump_graph:
        keep_record(folders.summary / "graph.txt", graph_text(state.model, data.preprocessing.size))
    logger.info(f"run {folders.name}: {folders.summary}")
    logged = LoggedRun(folders.name, folders.summary, config.model_dump(mode="json"), resumed_at)
    return folders, RunMetrics(logged, loggers, keep_bytes=keep_bytes)


def check_room(config: Config, resumed: Resumed | None, model: nn.Module) -> None:
    """Raises UserError (exit 1) where there is no room for what a run will write."""
    averaged = config.with_ema or config.optimizer_averages
    if resumed is None:
        check_space(Path(config.ckpt_root_dir), Path(config.best_ckpt_root_dir), model, averaged=averaged)
    else:
        check_space(resumed.folders.checkpoints, resumed.folders.best, model, averaged=averaged)


def check_space(checkpoints: Path, best: Path, model: nn.Module, *, averaged: bool) -> None:
    """Raises UserError (exit 1) where the disks have no room for what will lie below the two roots at once."""
    one = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    # Weights, two moments of the optimizer, averaged weights; a new checkpoint stands beside the one before.
    two = one * (3 + averaged) * 2
    if existing(checkpoints).stat().st_dev == existing(best).stat().st_dev:
        return _check_free(checkpoints, two + one, "two checkpoints and the best weights need", "--ckpt_root_dir")
    _check_free(checkpoints, two, "two checkpoints need", "--ckpt_root_dir")
    return _check_free(best, one, "the best weights need", "--best_ckpt_root_dir")


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(path for path in (path.absolute(), *path.absolute().parents) if path.exists())


def _check_free(root: Path, needed: int, who: str, option: str) -> None:
    free = shutil.disk_usage(existing(root)).free
    if free < needed:
        raise UserError(
            f"{root}: {free / 2**20:.1f} MiB free, {who} {needed / 2**20:.1f} MiB; free some space or set {option}",
            exit_code=RUN_FAILED,
        )
