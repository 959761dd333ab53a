"""Going on with a run: which checkpoint, whether it is whole, and whether it belongs to the run that is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from convmixer.config.options import options_of
from convmixer.config.schema import Config
from convmixer.data.batch_sampler import BatchSampler
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.shards.order import SequentialOrder
from convmixer.distributed.processes import restarted_run
from convmixer.errors import UserError
from convmixer.inputs import as_options, preprocessing_of
from convmixer.runs.checkpoints import MANIFEST, checkpoints, newest_run, run_of, written_at
from convmixer.runs.folders import RunFolders, run_suffix
from convmixer.runs.saved import run_folder
from convmixer.training.backend_choice import Backends
from convmixer.training.checkpointing.checkpoint import STATE, find_damage, load_checkpoint
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.datasets import TrainingData

logger = logging.getLogger(__name__)

# The options that what is learnt depends on must be the same in a resumed run. The images and classes count by
# fingerprint, and the three factors of the global batch by their product.
_FREE = frozenset(option.name for option in options_of(Config) if not option.affects_training)


def run_fingerprint(config: Config, data: TrainingData, sampler: BatchSampler) -> dict[str, Any]:
    """What makes a run this run: a resumed one must agree in every entry."""
    # A sequential order is cut into a range for each process.
    is_cut = isinstance(sampler.order, SequentialOrder)
    cut = {"processes and batch_size": [sampler.world, sampler.batch_size]} if is_cut else {}
    options = {name: value for name, value in config.model_dump(mode="json").items() if name not in _FREE}
    return {
        **options,
        **_inputs(data.preprocessing),
        "aa_interpolation": config.policy_interpolation,
        "global batch": sampler.global_batch,
        **cut,
        "classes": data.classes.fingerprint[:16],
        "images": len(data.train),
        "image names and labels": data.fingerprint()[:16],
    }


def _inputs(preprocessing: Preprocessing) -> dict[str, Any]:
    values = {**as_options(preprocessing), _EVALUATION: preprocessing.interpolation}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_EVALUATION = "interpolation of evaluation"
_DEFAULTS = {name: value for name, value in Config().model_dump(mode="json").items() if name not in _FREE}

# What was done before there was an option for it, where that is not the default.
_BEFORE_THE_OPTION = {"resampler": "pillow"}


def _as_today(before: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that an older version has written, as this one would have: what it lacks was as if left out."""
    then = {**_DEFAULTS, **_BEFORE_THE_OPTION, **before}
    then["set"] = str(then["set"]).lower()  # was ImageNet
    if _EVALUATION not in before:
        # The options alone said what the input is, and what they left out was ImageNet's.
        then |= _inputs(preprocessing_of(SimpleNamespace(**then), then["in_chans"]))
        if then["auto_augment"] is None:
            then["aa_interpolation"] = fingerprint["aa_interpolation"]  # nothing was resampled by it
    return then


@dataclass(frozen=True)
class Resumed:
    """A whole checkpoint folder and the run that it belongs to."""

    checkpoint: Path
    folders: RunFolders

    def check(self, fingerprint: Mapping[str, Any], *, force: bool) -> Backends:
        """The backends that the run has had.

        Raises UserError where the run was started with something else, which `force` goes on with all the same, and
        for a state that no run has written.
        """
        _, _, counters = self._content
        before = counters.get("identity") if isinstance(counters, Mapping) else None
        if not isinstance(before, Mapping) or not all(isinstance(name, str) for name in before):
            raise self._refusal("it does not say which run it belongs to (no identity)")
        try:
            before = _as_today(before, fingerprint)
        except (TypeError, ValueError, UserError):
            raise self._refusal("its identity is of another type than this program writes") from None
        changes = [
            f"{name}: {before.get(name)} then, {fingerprint.get(name)} now"
            for name in sorted(before.keys() | fingerprint.keys())
            if before.get(name) != fingerprint.get(name)
        ]
        if changes and not force:
            raise UserError(
                f"--resume: {self.checkpoint} belongs to a run with other options ({'; '.join(changes[:6])})\n"
                "give the same options, or --force_resume to go on with these"
            )
        for change in changes:
            logger.warning(f"resumed in spite of {change}")
        # The first checkpoints of this program have none, and later ones none of the evaluation.
        names = (counters.get("way"), counters.get("evaluation_way"))
        return Backends(*(name if isinstance(name, str) else None for name in names))

    def restore(self, state: TrainState) -> str:
        """Fill the state from the checkpoint and return what was restored, in a line. Raises UserError as `check`."""
        model, ema, counters = self._content
        try:
            state.restore(model, ema, counters)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            lines = str(error).strip().splitlines() if isinstance(error, ValueError | RuntimeError) else []
            raise self._refusal(lines[0] if lines else "it is of another type than this program writes") from None
        parts = ["weights", "optimizer", *(["averaged weights"] if ema is not None and state.ema is not None else [])]
        best = "none yet" if state.best_top1 is None else f"{state.best_top1:g}"
        return f"resumed {self.checkpoint}: step {state.step}, {', '.join(parts)}, best Top1-Acc {best}"

    @cached_property
    def _content(self) -> Any:
        return load_checkpoint(self.checkpoint)

    def _refusal(self, why: str) -> UserError:
        return UserError(
            f"--resume: {self.checkpoint / STATE}: no state of a training run: {why}\n"
            f"--pretrained {self.checkpoint} starts a new run from its weights"
        )


def find_resumable(config: Config, claim: Callable[[Path], None]) -> Resumed | None:
    """The checkpoint that `resume` names, None where it is left out or `auto` finds none.

    A path is a checkpoint folder or the checkpoint folder of a run; of a run the newest whole checkpoint is taken.
    A process that torchrun started again goes on with its own run. `claim` gets the run's checkpoint folder before
    anything in it is read, so that no other process changes it meanwhile; what it raises is passed on.
    """
    root = Path(config.ckpt_root_dir)
    own = restarted_run()
    if own is not None:
        runs = [run for run in sorted(root.glob(f"{own}*{run_suffix(config)}")) if checkpoints(run)]
        if runs:
            return _newest_whole(config, runs[-1], claim)
        # It was started to go on with an older run, or died before its first checkpoint.
    if config.resume is None:
        return None
    if config.resume != "auto":
        path = Path(config.resume)
        return _newest_whole(config, path if (path / MANIFEST).is_file() else run_folder(path, root) or path, claim)
    runs = [path for path in root.glob(f"*{run_suffix(config)}") if checkpoints(path)] if root.is_dir() else []
    if not runs:
        logger.info(f"--resume auto: no run *{run_suffix(config)} with a checkpoint in {root}, starting a new one")
        return None
    return _newest_whole(config, newest_run(runs), claim)


def _newest_whole(config: Config, path: Path, claim: Callable[[Path], None]) -> Resumed:
    """Of a checkpoint folder or a run's folder of them."""
    single = (path / MANIFEST).is_file()
    if not single and not checkpoints(path):
        raise UserError(f"--resume: {path} is neither a checkpoint folder (step_...) nor a run's folder of them")
    claim(path.resolve().parent if single else path.resolve())
    candidates = [path] if single else checkpoints(path)
    for candidate in reversed(candidates):
        damage = find_damage(candidate)
        if damage is None:
            _warn_of_later(candidate, candidates)
            return Resumed(candidate, _folders(config, candidate.resolve()))
        logger.warning(f"{candidate}: {damage}; trying the one before")
    raise UserError(f"--resume: no whole checkpoint in {path.parent if single else path}")


def _warn_of_later(taken: Path, candidates: list[Path]) -> None:
    """Say where a checkpoint of an earlier step was written later: the run has gone on from an older one since."""
    last = max(candidates, key=lambda path: (written_at(path), path == taken))
    if last != taken and find_damage(last) is None:
        logger.warning(f"{last}: was written after {taken.name}, which has the later step and is taken")


def _folders(config: Config, checkpoint: Path) -> RunFolders:
    """The folders of a checkpoint's run: below the roots of the options where it lies there, else where it says.

    Raises UserError where it names a folder that is not clearly the run's own: whoever wrote the manifest would have
    the run write there.
    """
    run = checkpoint.parent
    below = RunFolders.of(config, run.name)
    if below.checkpoints.resolve() == run:
        return below
    recorded = run_of(checkpoint)

    def own(name: str, default: Path, option: str) -> Path:
        path = Path(os.path.abspath(recorded.get(name, default)))
        beside = run.parent.parent / path.parent.name / run.name
        if path.resolve() in (default.resolve(), beside.resolve()):
            return path
        if beside.is_dir():  # the run was moved or copied as a whole
            return beside
        raise UserError(
            f"--resume: {checkpoint} says that the run's {name} folder is {path}, which is not beside it\n"
            f"--{option} {path.parent} goes on writing there; "
            f"--ckpt_root_dir {run.parent} uses the folders of the options"
        )

    summary = own("summary", below.summary, "summary_root_dir")
    return RunFolders(run.name, summary, run, own("best", below.best, "best_ckpt_root_dir"))
