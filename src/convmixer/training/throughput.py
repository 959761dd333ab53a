"""How fast a run trains and evaluates, by measurements of some seconds: what it will take, and what it is bound by."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from convmixer.data.source import seeded_subset
from convmixer.training.backend_choice import Backends, run_with
from convmixer.training.evaluator import Evaluator
from convmixer.training.loading.create import create_loader
from convmixer.training.loading.data_wait import DataWait
from convmixer.training.loading.train_batch import BatchLoader
from convmixer.training.loading.worker_loader import WorkerLoader
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.trial import Trial, trial

_EVALUATED = 256  # images that the speed of an evaluation is measured by


@dataclass(frozen=True)
class Throughput:
    """Images per second of this process: `first`, of training in an epoch in which images are read for the first time,
    and `later`; `device`, of steps on a batch that is there; `input`, of reading alone, which has all cores then;
    `evaluation`. `waited`: the part of the time of training that the device waited for data.
    """

    first: float
    later: float
    device: float
    input: float
    evaluation: float
    waited: float


def measured(run: ResolvedRun, seconds: float = 4.0) -> Throughput:
    """The speeds of a run, each by so many seconds; of the backends that the run itself would choose.

    Raises UserError for what does not fit, and RuntimeError as a run does.
    """
    with trial(run, backends=partial(run_with, run=run, before=Backends())) as tried:
        images = run.sampler.batch_size * run.config.accumulate
        alone = tried.images_per_second(seconds / 2)
        reading = _reading(create_loader(run, lambda _: None), images, seconds / 2)
        loader = create_loader(run, lambda _: None)
        first, waited, steps = _training(tried, loader, seconds)
        later = first
        if isinstance(loader, WorkerLoader) and loader.keeps_images:
            # The same steps again, whose images are in memory now.
            later, waited, _ = _training(tried, loader, seconds, steps)
        return Throughput(first, later, alone, reading, _evaluating(tried), waited)


def _training(tried: Trial, loader: BatchLoader, seconds: float, most: int | None = None) -> tuple[float, float, int]:
    """Images per second, the part of the time that was waited, and the steps made. The first three do not count."""
    run, images = tried.run, tried.run.sampler.batch_size * tried.run.config.accumulate
    wait, skipped, count, start = DataWait(run.device), 3, 0, 0.0
    with closing(loader.batches(range(most or 1 << 30))) as batches:
        for batch in wait.measured(iter(batches)):
            tried.step(batch).loss.item()  # the device has done it
            count += 1
            if count == skipped:
                wait.take()
                start = time.monotonic()
            if count > skipped and time.monotonic() - start > seconds:
                break
    taken = time.monotonic() - start
    return (count - skipped) * images / taken, wait.take() / taken, count


def _reading(loader: BatchLoader, images: int, seconds: float) -> float:
    """Images per second of the loader by itself, from its second step on."""
    count, start = 0, time.monotonic()
    with closing(loader.batches(range(1 << 30))) as batches:
        for _ in batches:
            if count == 0:
                start = time.monotonic()
            count += 1
            if count > 2 and time.monotonic() - start > seconds:
                break
    return (count - 1) * images / (time.monotonic() - start)


def _evaluating(tried: Trial) -> float:
    """Images per second of an evaluation; a small one before it does not count."""
    run, state = tried.run, tried.state
    for count in (2, _EVALUATED):
        part = replace(run.data, val=seeded_subset(run.data.val, count, run.config.seed))
        evaluate, start = Evaluator(replace(run, data=part), state), time.monotonic()
        evaluate(lambda: False)
    return len(part.val) / (time.monotonic() - start)
