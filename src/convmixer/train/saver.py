"""What a run leaves on disk beside its record: checkpoints to go on from, and the best weights.

The training loop waits only while the state is copied to the host's memory; a thread writes the copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs import RunFolders
from convmixer.train.checkpoint import EMA, MODEL, keep_newest, save_checkpoint
from convmixer.train.journal import Journal
from convmixer.train.numerics import first_non_finite
from convmixer.train.state import TrainState
from convmixer.weights.write import write_weights

BEST = "best.safetensors"


class Saver:
    """Writes on the first process (`folders` given), does nothing on the others.

    `about`: architecture, classes and preprocessing, which go into every weight file; `identity`: what a resumed run
    is compared with; `keep`: checkpoints kept; `latest`: the newest checkpoint.
    """

    def __init__(
        self,
        folders: RunFolders | None,
        about: Mapping[str, Any],
        identity: Mapping[str, Any],
        keep: int,
        journal: Journal | None = None,
        latest: Path | None = None,
    ) -> None:
        self.folders, self.about, self.identity, self.keep = folders, about, identity, keep
        self.journal, self.latest = journal, latest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._writing: list[Future[None]] = []

    @property
    def best(self) -> Path | None:
        """The file of the best weights."""
        return None if self.folders is None else self.folders.best / BEST

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
        if self.journal is not None:
            state.log_bytes = self.journal.bytes
        weights = {MODEL: state.model.state_dict()}
        if state.ema is not None:
            weights[EMA] = dict(state.ema.weights())
        content = {**state.counters(), "identity": dict(self.identity)}
        copies, step, root = _copied(weights), state.step, self.folders.checkpoints
        run = {"summary": str(self.folders.summary.absolute()), "best": str(self.folders.best.absolute())}
        copied_content = _copied(content)

        def write() -> None:
            self.latest = save_checkpoint(root, step, copies, copied_content, self.about, run)
            keep_newest(root, self.keep)

        self._write(write)

    def save_best(self, state: TrainState) -> None:
        """Copy the weights that are evaluated and write them, in the background, to the one file of the best."""
        path = self.best
        if path is None:
            return
        self.finish()
        copies, extra = _copied(dict(state.weights())), {"step": state.step, "top1": state.best_top1}
        self._write(lambda: write_weights(path, copies, **self.about, extra=extra))

    def save_non_finite(self, state: TrainState) -> None:
        """Put the state of a step whose loss is not finite beside the run's record, for whoever looks into it.

        It is the state before that step's update, but for BatchNorm's running statistics (`TrainStep`).
        """
        if self.folders is not None:
            weights = {MODEL: state.model.state_dict()}
            save_checkpoint(self.folders.summary / "non_finite", state.step, weights, state.counters(), self.about)

    def finish(self) -> None:
        """Wait for what is being written. Raises UserError where that failed."""
        while self._writing:
            self._writing.pop(0).result()

    def _write(self, job: Callable[[], None]) -> None:
        self._writing.append(self._thread.submit(job))


def check_space(root: Path, state: TrainState) -> None:
    """Raises UserError (exit 1) where the disk has no room for the checkpoints that will lie below `root` at once."""
    one = sum(tensor.numel() * tensor.element_size() for tensor in state.model.state_dict().values())
    # Weights, two moments of the optimizer, averaged weights; a new checkpoint stands beside the one before.
    checkpoint = one * (3 + (state.ema is not None))
    needed = checkpoint * 2 + one
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{root}: {free / 2**20:.1f} MiB free, two checkpoints and the best weights need "
            f"{needed / 2**20:.1f} MiB; free some space or set --ckpt_root_dir",
            exit_code=RUN_FAILED,
        )


def _copied(value: Any) -> Any:
    """The same structure with every tensor copied to the host."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value
