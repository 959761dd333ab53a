"""What a run leaves on disk beside its record: checkpoints to go on from, and the best weights.

The training loop waits only while the state is copied to the host's memory; a thread writes the copy.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.folders import RunFolders
from convmixer.runs.lock import RunLock
from convmixer.runs.result import RunResult
from convmixer.training.checkpointing.checkpoint import EMA, MODEL, keep_newest, save_checkpoint
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.logging.run_metrics import RunMetrics
from convmixer.training.non_finite import first_non_finite
from convmixer.weights.write import write_weights

logger = logging.getLogger(__name__)

BEST = "best.safetensors"


class CheckpointManager:
    """Writes on the first process (`folders` given), does nothing on the others.

    `metadata`: architecture, classes and preprocessing, which go into every weight file; `fingerprint`: what a resumed
    run is compared with; `keep`: checkpoints kept; `latest`: the newest checkpoint; `lock`: released by `close`;
    `facts`: what else the best weights say of the run.
    """

    def __init__(
        self,
        folders: RunFolders | None,
        metadata: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        keep: int,
        metrics: RunMetrics | None = None,
        latest: Path | None = None,
        lock: RunLock | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.folders, self.metadata, self.fingerprint, self.keep = folders, metadata, fingerprint, keep
        self.metrics, self.latest, self.lock, self.facts = metrics, latest, lock, facts or {}
        self._best: _Best | None = None  # what the disk has not taken yet
        self._warned = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: list[Future[None]] = []

    @property
    def best(self) -> Path | None:
        """The file of the best weights."""
        return None if self.folders is None else self.folders.best / BEST

    def result(self, state: TrainState) -> RunResult | None:
        """What the run has left, on the first process."""
        if self.folders is None or self.best is None:
            return None
        folders = self.folders
        return RunResult(
            folders.name,
            folders.summary,
            folders.checkpoints,
            folders.best,
            self.best,
            self.latest,
            state.best_top1,
        )

    def save_checkpoint(self, state: TrainState) -> None:
        """Copy the state and write it in the background, then drop the oldest checkpoints past `keep`.

        Raises UserError (exit 1) for weights that are not finite, and for a write before this one that failed.
        """
        if self.folders is None:
            return
        self.finish()
        bad = first_non_finite(state.model.state_dict())
        if bad is not None:
            raise UserError(f"step {state.step}: {bad} is not finite; not saved", exit_code=RUN_FAILED)
        if self.metrics is not None:
            state.log_bytes = self.metrics.bytes
        if self.lock is not None:
            self.lock.check()
        weights = {MODEL: state.model.state_dict()}
        if state.ema is not None:
            weights[EMA] = dict(state.ema.weights())
        content = {**state.counters(), "identity": dict(self.fingerprint)}
        if self._best is not None:
            # A resumed run compares with the file that is there, and evaluates these weights again to write them.
            content["best_top1"] = self._best.top1_before
            if self._best.extra["step"] == state.step:
                content |= {"evaluated_step": -1, "log_bytes": self._best.log_bytes}
        copies, step, root = _copied(weights), state.step, self.folders.checkpoints
        run = {"summary": str(self.folders.summary.absolute()), "best": str(self.folders.best.absolute())}
        copied_content = _copied(content)

        def write() -> None:
            self.latest = save_checkpoint(root, step, copies, copied_content, self.metadata, run)
            keep_newest(root, self.keep, step)
            self._write_best()

        self._write(write)

    def save_best(self, state: TrainState, top1_before: float | None) -> None:
        """Copy the weights that are evaluated and write them, in the background, to the one file of the best.

        `top1_before`: the best score until now. A disk that refuses does not end the run: each checkpoint tries again.
        """
        if self.folders is None:
            return
        self.finish()
        if self._best is not None:
            top1_before = self._best.top1_before
        extra = {"step": state.step, "top1": state.best_top1, **self.facts}
        log_bytes = 0 if self.metrics is None else self.metrics.bytes
        self._best = _Best(_copied(dict(state.weights())), extra, top1_before, log_bytes)
        self._write(self._write_best)

    def _write_best(self) -> None:
        path, best = self.best, self._best
        if path is None or best is None:
            return
        try:
            with contextlib.suppress(OSError):  # the folder may have been deleted; what else is wrong comes next
                path.parent.mkdir(parents=True, exist_ok=True)
            write_weights(path, best.weights, **self.metadata, extra=best.extra)
        except UserError as error:
            if not self._warned:
                logger.warning(f"{error} They are tried again with each checkpoint.")
            self._warned = True
        else:
            self._best, self._warned = None, False

    def save_non_finite(self, state: TrainState) -> None:
        """Put the state of a step whose loss is not finite beside the run's record, for whoever looks into it.

        It is the state before that step's update, but for BatchNorm's running statistics (`TrainStep`).
        """
        if self.folders is not None:
            weights = {MODEL: state.model.state_dict()}
            try:
                save_checkpoint(
                    self.folders.summary / "non_finite", state.step, weights, state.counters(), self.metadata
                )
            except UserError as error:  # which must not take the place of what has happened
                logger.warning(str(error))

    def finish(self) -> None:
        """Wait for what is being written. Raises UserError where that failed."""
        while self._writing:
            self._writing.pop(0).result()

    def end(self) -> None:
        """Wait for all that is to be written. Raises UserError (exit 1) where some of it failed."""
        self.finish()
        if self._best is not None:
            self._write(self._write_best)
            self.finish()
        if self._best is not None:
            raise UserError(
                f"{self.best}: the best weights, those of step {self._best.extra['step']}, could not be written",
                exit_code=RUN_FAILED,
            )

    def close(self) -> None:
        """Let what is being written end, and others have the run."""
        self._thread.shutdown()
        if self.lock is not None:
            self.lock.release()

    def _write(self, task: Callable[[], None]) -> None:
        self._writing.append(self._thread.submit(task))


@dataclass
class _Best:
    """Best weights on their way to the disk.

    `top1_before`: the score of those that lie there; `log_bytes`: length of metrics.jsonl before their evaluation.
    """

    weights: dict[str, torch.Tensor]
    extra: dict[str, Any]
    top1_before: float | None
    log_bytes: int


def _copied(value: Any) -> Any:
    """The same structure with every tensor copied to the host."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value
