"""Going on with a run: which checkpoint, whether it is whole, and whether it belongs to what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmixer.config.schema import Config
from convmixer.errors import UserError
from convmixer.progress import note
from convmixer.runs import RunFolders, run_suffix
from convmixer.train.checkpoint import MANIFEST, checkpoints, fault_of, load_checkpoint
from convmixer.train.state import TrainState


@dataclass(frozen=True)
class Resumed:
    """A whole checkpoint folder and the run that it belongs to."""

    checkpoint: Path
    folders: RunFolders

    def restore(self, state: TrainState, identity: Mapping[str, Any]) -> None:
        """Fill the state from the checkpoint. Raises UserError where it was made with other classes, data or arch."""
        model, ema, counters = load_checkpoint(self.checkpoint)
        for name, value in counters["identity"].items():
            now = identity.get(name)
            if now != value:
                raise UserError(f"--resume: {self.checkpoint} was trained with another {name} ({value}, now {now})")
        if (ema is None) != (state.ema is None):
            raise UserError(
                f"--resume: {self.checkpoint} was trained with_ema {ema is not None}, now it is {state.ema is not None}"
            )
        state.restore(model, ema, counters)
        note(f"resumed {self.checkpoint}: step {state.step}, best Top1-Acc {state.best_top1}")


def find_resumable(config: Config) -> Resumed | None:
    """The checkpoint that `resume` names, None where it is left out or `auto` finds none.

    A path is a checkpoint folder or the checkpoint folder of a run; of a run the newest whole checkpoint is taken.
    """
    if config.resume is None:
        return None
    if config.resume != "auto":
        return _newest_whole(config, _named(Path(config.resume)))
    root = Path(config.ckpt_root_dir)
    runs = [path for path in root.glob(f"*{run_suffix(config)}") if checkpoints(path)] if root.is_dir() else []
    if not runs:
        note(f"--resume auto: no run *{run_suffix(config)} with a checkpoint in {root}, starting a new one")
        return None
    newest = max(runs, key=lambda path: path.name)
    return _newest_whole(config, checkpoints(newest))


def _named(path: Path) -> list[Path]:
    if (path / MANIFEST).is_file():
        return [path]
    found = checkpoints(path)
    if not found:
        raise UserError(f"--resume: {path} is neither a checkpoint folder (step_...) nor a run's folder of them")
    return found


def _newest_whole(config: Config, candidates: list[Path]) -> Resumed:
    for path in reversed(candidates):
        fault = fault_of(path)
        if fault is None:
            return Resumed(path, RunFolders.of(config, path.resolve().parent.name))
        note(f"{path}: {fault}; trying the one before")
    raise UserError(f"--resume: no whole checkpoint in {candidates[0].parent}")
