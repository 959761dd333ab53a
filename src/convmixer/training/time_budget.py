"""`--time_budget`: as many epochs as fit into it, by a measurement of some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.distributed.processes import Processes
from convmixer.errors import UserError
from convmixer.machine import cores_of_this_process, workers
from convmixer.terminal.progress import duration
from convmixer.training.backend_choice import Backends, run_with
from convmixer.training.datasets import TrainingData, train_reader
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.trial import trial

ORIGIN = "measured for time_budget"
_SECONDS = 4.0  # of each of the two measurements, at most
_AROUND = 10.0  # seconds of a run beside its epochs: the start, this measurement, the report
_SHARE = 0.9  # of what is left, for steps; evaluations and saves have the rest


def within_budget(
    resolved: Resolved[Config], assembled: Callable[[Resolved[Config]], ResolvedRun], say: Callable[[str], None]
) -> Resolved[Config]:
    """The options, with as many epochs as fit into the budget, at least one; `assembled` makes a run of options.

    Raises UserError where the command line asks for a number of epochs too.
    """
    config = resolved.options
    if config.time_budget is None or resolved.goes_on:
        return resolved
    if resolved.is_explicit("epochs"):
        raise UserError("--time_budget: chooses the epochs, which --epochs gives; leave one of them out")
    run = assembled(resolved)
    slowest = max(run.processes.gather(seconds_per_image(run)))
    images = run.sampler.steps_per_epoch * run.sampler.global_batch / run.processes.count
    epoch = slowest * images
    epochs = max(int(_SHARE * (config.time_budget - _AROUND) / epoch), 1)
    say(f"time_budget {duration(config.time_budget)}: {epochs} epochs of about {duration(epoch)} ({ORIGIN})")
    if epoch > config.time_budget:
        say("a single epoch takes longer than that; --train_num_samples uses a part of the images")
    return resolved.changed({"epochs": epochs}, ORIGIN)


def seconds_per_image(run: ResolvedRun) -> float:
    """Of one training image, where reading and the network share the processor, or the slower of the two on a GPU."""
    processes = max(workers(run.config.num_parallel_workers), 1)
    reading = _reading(run.config, run.data) / processes
    # A step with BatchNorm over all processes waits for them, and each makes as many as it can.
    alone = replace(run, processes=Processes())
    # By the backend that the run will have: what is measured to choose it is kept for then.
    with trial(alone, backends=partial(run_with, run=alone, before=Backends())) as tried:
        step = 1 / tried.images_per_second(_SECONDS)
    if run.device.type != "cpu":
        return max(reading, step)
    return step + reading * processes / cores_of_this_process()


def _reading(config: Config, data: TrainingData) -> float:
    """Seconds that one process takes for one crop."""
    reader, start, count = train_reader(config, data), time.monotonic(), 0
    while count < 32 or (count < 256 and time.monotonic() - start < _SECONDS):
        reader.read(0, count * 97 % len(data.train))
        count += 1
    return (time.monotonic() - start) / count
