"""A run with `--freeze`, from its resolved options to its result: features once, then the head in seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.config.augment import AugmentOptions
from convmixer.config.loss import LossOptions
from convmixer.config.optimizer import OptimizerOptions, ScheduleOptions
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.data.balance import balance_remark, class_weights
from convmixer.data.source import Source
from convmixer.distributed.processes import Processes
from convmixer.evaluation import check_any_readable, name_unreadable
from convmixer.metrics.score import Score
from convmixer.model import ConvMixer
from convmixer.runs.result import RunResult
from convmixer.training.bad_images import BadImages
from convmixer.training.checkpointing.resume import run_fingerprint
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.evaluator import MAX_NAMED
from convmixer.training.frozen.feature_cache import key_of, load_features, save_features
from convmixer.training.frozen.features import Features, compute_features, feature_runtime
from convmixer.training.frozen.logistic_regression import STRENGTHS, Head, best_of, fit, held_out, try_strengths
from convmixer.training.logging.metric_logger import MetricLogger, create_loggers
from convmixer.training.loss_scaler import LossScaler
from convmixer.training.network import create_network
from convmixer.training.optimizer import create_optimizer
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.run_folders import check_room
from convmixer.training.writers import Locks, open_writers

logger = logging.getLogger(__name__)

Say = Callable[[str], None]

# What a head that is found as a minimum does not depend on. hflip says whether it sees mirrored images too, and
# balance how much each class counts.
_OF_STEPS = ("accumulate", "eval_every", "patience", "sync_bn", "recompute", "drop_path", "layer_decay", "start_epoch")
_MEANINGLESS = [
    *(
        name
        for group in (ScheduleOptions, OptimizerOptions, AugmentOptions, LossOptions)
        for name in group.model_fields
    ),
    *_OF_STEPS,
]
_MEANT = {"hflip", "balance", "interpolation"}
# The run is one pass over the images, whatever the recipe says of epochs.
_ONE_PASS = {"epochs": 1, "start_epoch": 0, "warmup_length": 0.0, "time_budget": None, "mixup_off_epoch": 0.0}


def as_one_pass(resolved: Resolved[Config], say: Say) -> Resolved[Config]:
    """The options of a run with `--freeze`; `say` gets the names of those that were given in vain."""
    given = [name for name in dict.fromkeys(_MEANINGLESS) if name not in _MEANT and resolved.is_explicit(name)]
    if given:
        say(f"--freeze: finds the head as a minimum, on which these have no influence: {', '.join(given)}")
    return resolved.changed(_ONE_PASS, "freeze")


def train_head(run: ResolvedRun, say: Say) -> RunResult | None:
    """Train the head and leave what any run leaves; the result, None in all processes but the first.

    Raises UserError for what does not fit or fails. Nothing is written before the head is there, but the features.
    """
    config, processes, data = run.config, run.processes, run.data
    loggers = processes.on_first(lambda: create_loggers(config.log_to)) or {}
    model = create_network(run, say).eval().requires_grad_(False)
    model.head.requires_grad_(True)
    say(f"{len(data.train)} training and {len(data.val)} evaluation images of {len(data.classes)} classes")
    if remark := balance_remark(data.train, config.balance):
        say(remark)
    views = 2 if config.hflip > 0 else 1

    @cache
    def runtime() -> TorchRuntime:
        """Made where features are to be computed, once for both splits."""
        return feature_runtime(run, model, len(data.train) * views + len(data.val))

    train = _features(run, model, runtime, data.train, views, "features of the training images", say)
    val = _features(run, model, runtime, data.val, 1, "features of the evaluation images", say)
    start = time.monotonic()
    found = processes.on_first(lambda: _fitted(run, train, say))
    head: Head = processes.from_first(found)
    with torch.no_grad():
        model.head.weight.copy_(head.weight)
        model.head.bias.copy_(head.bias)
    say(f"the head is trained, in {time.monotonic() - start:.1f} s")
    score = processes.from_first(_score(run, head, val) if processes.is_first else None)
    return _keep(run, model, score, loggers)


def _features(
    run: ResolvedRun,
    model: ConvMixer,
    runtime: Callable[[], TorchRuntime],
    source: Source,
    views: int,
    label: str,
    say: Say,
) -> Features:
    """Features of a split, on the first process; those that are kept from an earlier run where there are any."""
    processes = run.processes
    key = processes.on_first(lambda: key_of(run, model, source, views)) or ""
    kept = load_features(key) if processes.is_first else None
    if processes.from_first(kept is not None):
        say(f"{label}: kept from an earlier run with the same weights, images and preprocessing")
        return kept or Features(np.empty((0, views, model.arch.dim), np.float32), np.empty(0, np.int64))
    start = time.monotonic()
    features = compute_features(run, runtime(), source, views, label)
    say(f"{label}: {len(features.indices)} in {time.monotonic() - start:.1f} s")
    if processes.is_first and (path := save_features(key, features)) is not None:
        say(f"{label}: kept in {path}")
    return features


def _fitted(run: ResolvedRun, train: Features, say: Say) -> Head:
    """The head of the strength that does best on a part of the training images, fitted to all of them."""
    config, classes = run.config, len(run.data.classes)
    _check_bad(run, train)
    labels = run.data.train.labels[train.indices]
    counts = class_weights(labels, classes) if config.balance != "none" else np.ones(classes)
    views = train.values.shape[1]
    features = torch.from_numpy(train.values)

    def part(chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features, labels and weights of images, with the views of each."""
        of_images = torch.from_numpy(labels[chosen]).repeat_interleave(views)
        values = features[torch.from_numpy(chosen)].flatten(0, 1).to(run.device)
        return values, of_images.to(run.device), torch.from_numpy(counts).float()[of_images].to(run.device)

    is_val = held_out(labels, config.seed)
    strength = STRENGTHS[len(STRENGTHS) // 2]
    if is_val.any():
        fitted_to, (val, val_labels, _) = part(np.flatnonzero(~is_val)), part(np.flatnonzero(is_val))
        tried = try_strengths(fitted_to[0], fitted_to[1], val, val_labels, classes, fitted_to[2])
        strength = best_of(tried)
        say(
            f"accuracy on {int(is_val.sum())} held-out training images by the strength of the L2 penalty: "
            + ", ".join(f"{one.strength:g}: {one.accuracy:.1%}" for one in tried)
        )
        say(f"strength {strength:g} is the best of them; the head is fitted with it to all training images")
    else:
        say(f"no class has two images to choose the strength of the L2 penalty by: {strength:g} is taken")
    values, targets, weights = part(np.arange(len(labels)))
    head = fit(values, targets, classes, strength, weights)
    return Head(head.weight.cpu(), head.bias.cpu())


def _check_bad(run: ResolvedRun, train: Features) -> None:
    """Name training images that could not be read. Raises UserError (exit 1) for too many."""
    bad = BadImages.of(replace(run, processes=Processes()))  # those of all processes are known here, on the first
    for line in bad.add(dict(sorted(train.bad)))[:MAX_NAMED]:
        logger.warning(f"skipped {line}")
    bad.check()


def _score(run: ResolvedRun, head: Head, val: Features) -> Score:
    score = Score(bad=list(val.bad))
    if len(val.indices):
        logits = head.logits(torch.from_numpy(val.values[:, 0])).numpy()
        score.add(logits, run.data.val.labels[val.indices], val.indices)
    return score


def _keep(run: ResolvedRun, model: ConvMixer, score: Score, loggers: dict[str, MetricLogger]) -> RunResult | None:
    """Write the run: folders, metrics, best weights and a checkpoint."""
    config, processes, val = run.config, run.processes, run.data.val
    check_any_readable(score, val)
    if processes.is_first:
        name_unreadable(score.bad, score, val, MAX_NAMED)
    processes.on_first(lambda: check_room(config, None, model))
    state = TrainState(
        model, create_optimizer(model, config), LossScaler.of(config, run.precision), step=run.intervals.last_step
    )
    state.evaluated_step, state.best_top1 = state.step, score.results()["Top1-Acc"]
    fingerprint, locks = run_fingerprint(config, run.data, run.sampler), Locks()
    try:
        reporter, manager = open_writers(run, state, fingerprint, loggers, locks)
    except BaseException:
        locks.release()
        raise
    failed = True
    try:
        manager.save_best(state, None)
        reporter.evaluation(state.step, score, 0.0, best=True)
        manager.save_checkpoint(state)
        manager.end()
        failed = False
    finally:
        reporter.close(failed=failed)
        manager.close()
    return manager.result(state)
