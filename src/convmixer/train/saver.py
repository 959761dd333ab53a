"""What a run leaves on disk beside its record: checkpoints to go on from, and the best weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmixer.runs import RunFolders
from convmixer.train.checkpoint import EMA, MODEL, keep_newest, save_checkpoint
from convmixer.train.journal import Journal
from convmixer.train.state import TrainState
from convmixer.weights.write import write_weights

BEST = "best.safetensors"


@dataclass
class Saver:
    """Writes on the first process (`folders` given), does nothing on the others.

    `about`: architecture, classes and preprocessing, which go into every weight file; `identity`: what a resumed run
    is compared with.
    """

    folders: RunFolders | None
    about: Mapping[str, Any]
    identity: Mapping[str, Any]
    keep: int
    journal: Journal | None = None
    latest: Path | None = None

    @property
    def best(self) -> Path | None:
        """The file of the best weights."""
        return None if self.folders is None else self.folders.best / BEST

    def save_checkpoint(self, state: TrainState) -> None:
        """Write the state, then drop the oldest checkpoints past `keep`."""
        if self.folders is None:
            return
        if self.journal is not None:
            state.log_bytes = self.journal.bytes
        weights = {MODEL: state.model.state_dict()}
        if state.ema is not None:
            weights[EMA] = state.ema.weights()
        content = {**state.counters(), "identity": dict(self.identity)}
        self.latest = save_checkpoint(self.folders.checkpoints, state.step, weights, content, self.about)
        keep_newest(self.folders.checkpoints, self.keep)

    def save_best(self, state: TrainState) -> None:
        """Write the weights that are evaluated to the one file of the best."""
        if self.best is not None:
            extra = {"step": state.step, "top1": state.best_top1}
            write_weights(self.best, state.weights(), **self.about, extra=extra)
