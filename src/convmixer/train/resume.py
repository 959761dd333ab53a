"""Going on with a run: which checkpoint, whether it is whole, and whether it belongs to what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmixer.config.schema import Config
from convmixer.distributed import restarted_run
from convmixer.errors import UserError
from convmixer.inputs import as_options
from convmixer.progress import note
from convmixer.runs import RunFolders, run_suffix
from convmixer.train.checkpoint import MANIFEST, checkpoints, fault_of, load_checkpoint, run_of
from convmixer.train.data import TrainingData
from convmixer.train.state import TrainState

# Options that do not change what is learnt: where things lie, on what they run, how often they are told. All others
# must be the same in a resumed run. The images and classes count by fingerprint, and the three factors of the global
# batch by their product.
FREE = frozenset(
    "data_url train_dir val_dir pretrained entry exclude_epoch_state resume force_resume num_parallel_workers "
    "eval_every defaults batch_size accumulate device_num device_target device_id execution compile max_bad_share "
    "loader_timeout dist_timeout max_restarts debug_nan summary_root_dir ckpt_root_dir best_ckpt_root_dir "
    "ckpt_keep_num ckpt_save_every_step ckpt_save_every_sec print_loss_every summary_loss_collect_freq model_postfix "
    "collect_input_data dump_graph file_format".split()
)


def identity_of(config: Config, data: TrainingData, global_batch: int) -> dict[str, Any]:
    """What makes a run this run: a resumed one must agree in every entry."""
    options = {name: value for name, value in config.model_dump(mode="json").items() if name not in FREE}
    inputs = as_options(data.preprocessing)
    return {
        **options,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()},
        "aa_interpolation": config.policy_interpolation,
        "global batch": global_batch,
        "classes": data.classes.fingerprint[:16],
        "images": len(data.train),
        "interpolation of evaluation": data.preprocessing.interpolation,
        "image names and labels": data.fingerprint()[:16],
    }


@dataclass(frozen=True)
class Resumed:
    """A whole checkpoint folder and the run that it belongs to."""

    checkpoint: Path
    folders: RunFolders

    def restore(self, state: TrainState, identity: Mapping[str, Any], *, force: bool) -> str:
        """Fill the state from the checkpoint and return what was restored, in a line.

        Raises UserError where the run was started with something else; `force` goes on all the same.
        """
        model, ema, counters = load_checkpoint(self.checkpoint)
        before = counters["identity"]
        changes = [
            f"{name}: {before.get(name)} then, {identity.get(name)} now"
            for name in sorted(before.keys() | identity.keys())
            if before.get(name) != identity.get(name)
        ]
        if changes and not force:
            raise UserError(
                f"--resume: {self.checkpoint} belongs to a run with other options ({'; '.join(changes[:6])})\n"
                "give the same options, or --force_resume to go on with these"
            )
        for change in changes:
            note(f"resumed in spite of {change}")
        state.restore(model, ema, counters)
        parts = ["weights", "optimizer", *(["averaged weights"] if ema is not None and state.ema is not None else [])]
        best = "none yet" if state.best_top1 is None else f"{state.best_top1:g}"
        return f"resumed {self.checkpoint}: step {state.step}, {', '.join(parts)}, best Top1-Acc {best}"


def find_resumable(config: Config) -> Resumed | None:
    """The checkpoint that `resume` names, None where it is left out or `auto` finds none.

    A path is a checkpoint folder or the checkpoint folder of a run; of a run the newest whole checkpoint is taken.
    A process that torchrun started again goes on with its own run.
    """
    root = Path(config.ckpt_root_dir)
    own = restarted_run()
    if own is not None:
        found = [path for run in sorted(root.glob(f"{own}*{run_suffix(config)}")) for path in checkpoints(run)]
        return _newest_whole(config, found) if found else None
    if config.resume is None:
        return None
    if config.resume != "auto":
        return _newest_whole(config, _named(Path(config.resume)))
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
            return Resumed(path, _folders(config, path.resolve()))
        note(f"{path}: {fault}; trying the one before")
    raise UserError(f"--resume: no whole checkpoint in {candidates[0].parent}")


def _folders(config: Config, checkpoint: Path) -> RunFolders:
    """The folders of a checkpoint's run: below the roots of the options where it lies there, else where it says."""
    run = checkpoint.parent
    below = RunFolders.of(config, run.name)
    if below.checkpoints.resolve() == run:
        return below
    there = run_of(checkpoint)
    return RunFolders(run.name, Path(there.get("summary", below.summary)), run, Path(there.get("best", below.best)))
