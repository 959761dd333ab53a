"""The learning-rate range test: a run's own steps at an ever higher rate (Smith 2015, https://arxiv.org/abs/1506.01186).

Training goes through it as the run would: network, data, augmentation, optimizer, clipping and precision are the run's.
Nothing is written, and the run that follows begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from functools import partial

from convmixer.config.schema import LrFindConfig
from convmixer.errors import RUN_FAILED, UserError
from convmixer.planning.learning_rate import Curve, exponential, has_exploded
from convmixer.terminal.progress import Progress
from convmixer.training.backend_choice import Backends, run_with
from convmixer.training.bad_images import BadImages
from convmixer.training.error_messages import explain
from convmixer.training.loading.create import create_loader
from convmixer.training.loading.train_batch import BatchLoader
from convmixer.training.non_finite import NonFinite
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.trial import Trial, trial

logger = logging.getLogger(__name__)


def range_test(run: ResolvedRun, options: LrFindConfig, say: Callable[[str], None] = logger.info) -> Curve:
    """The losses at the rates of `options`, up to where they explode or are no numbers.

    Raises UserError where something does not fit or fails, or where the test ends before there is a curve.
    """
    if options.lr_start >= options.lr_end:
        raise UserError(f"lr_start: is {options.lr_start:g}, which must be below lr_end, {options.lr_end:g}")
    rates = exponential(options.lr_start, options.lr_end, options.lr_steps)
    loader = create_loader(run, say)
    backends = partial(run_with, run=run, before=Backends())
    try:
        with trial(run, schedule=lambda step: float(rates[step]), backends=backends) as tried:
            losses, end = _losses(tried, loader, options.lr_steps)
    except RuntimeError as error:
        size, recompute = run.data.train_size, run.config.recompute
        explained = explain(error, loader, image_size=size, processes=1, recompute=recompute)
        if explained is None:
            raise
        raise explained from error
    say(f"{len(losses)} steps from {rates[0]:.3g} to {rates[len(losses) - 1]:.3g}: {end}")
    if len(losses) < 10:
        raise UserError(
            f"lr-find: {end} after {len(losses)} steps, too few for a curve; lower --lr_start", exit_code=RUN_FAILED
        )
    return Curve.of(rates[: len(losses)], losses)


def _losses(tried: Trial, loader: BatchLoader, steps: int) -> tuple[list[float], str]:
    """The loss of each step, and what ended them."""
    run, state, losses = tried.run, tried.state, list[float]()
    bad = BadImages.of(run)
    state.step, state.ema = 0, None  # the average is of no use here, and takes time
    with Progress(steps, "range test", "step") as progress, closing(loader.batches(range(steps))) as batches:
        for batch in batches:
            for line in bad.add(bad.new_in(batch)):
                logger.warning(f"skipped {line}")
            bad.check()
            try:
                loss = float(tried.step(batch).loss)
                tried.step.check_pending()
            except NonFinite:
                return losses, "the loss is no number any more"
            losses.append(loss)
            progress.add(1)
            if has_exploded(losses):
                return losses, "the loss has exploded"
    return losses, "all of them"


def suggested_base_lr(run: ResolvedRun, curve: Curve) -> float:
    """The `base_lr` whose peak the curve suggests: divided by what `lr_scaling` multiplies it by."""
    return curve.suggestion * run.config.base_lr / run.schedule.peak


def reasons(run: ResolvedRun, curve: Curve) -> list[str]:
    """Lines that say what the suggestion follows from."""
    config = run.config
    scaled = "" if run.schedule.peak == config.base_lr else "; --lr_scaling linear multiplies base_lr to that"
    lines = [
        f"the smoothed loss is lowest at {curve.suggestion:.2g}, suggested as the peak of the schedule "
        f"({config.lr_scheduler}){scaled}",
        f"the run has base_lr {config.base_lr:g} now ({run.resolved.origins['base_lr']}); rates within a factor of two "
        "to four are hardly told apart, and other data, batch or optimizer want another test",
    ]
    if curve.falls_to_the_end:
        lines.append("the loss was still falling at the end: a higher --lr_end would show where it turns")
    return lines
