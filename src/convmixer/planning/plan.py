"""What a run will take: counted by formula, measured for some seconds, and estimated from both."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convmixer.machine import cores_of_this_process, memory, workers
from convmixer.network_costs import macs, parameters
from convmixer.training.error_messages import out_of_memory
from convmixer.training.loading.data_wait import reading_bound
from convmixer.training.resolved_run import ResolvedRun
from convmixer.training.run_folders import existing
from convmixer.training.throughput import Throughput, measured
from convmixer.training.trial import trial

_WAITED = 0.1  # part of the time from which on a run is bound by its data
_LINE = 220  # bytes of a line of metrics.jsonl, which the events of TensorBoard about double
_ANSWER = 100  # bytes of a row of predictions.csv
_REPORT = 5 << 20  # bytes of a report at most


@dataclass(frozen=True)
class Memory:
    """Bytes on the device: `weights` with statistics, `optimizer`'s moments, `average` of the weights, and what a
    `step` takes beside them at its highest; `free` of the device, None where it is not known."""

    weights: int
    optimizer: int
    average: int
    step: int
    free: int | None

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.average + self.step


@dataclass(frozen=True)
class Plan:
    """`macs` per image, forward; `disk` in bytes, of which `disk_free` are there; `bound_by`: data or compute, and
    `remedy`, a line on what would make it faster; `seconds` of the training and of all evaluations."""

    parameters: int
    macs: int
    steps_per_epoch: int
    steps: int
    epochs: int
    evaluations: int
    memory: Memory
    speed: Throughput
    bound_by: str
    remedy: str | None
    training_seconds: float
    evaluation_seconds: float
    disk: int
    disk_free: int

    @property
    def seconds(self) -> float:
        """Without the start, saves and the report."""
        return self.training_seconds + self.evaluation_seconds


def make_plan(run: ResolvedRun) -> Plan:
    """Measure the run for some seconds. Writes nothing. Raises UserError for what does not fit or fails."""
    config, data, sampler = run.config, run.data, run.sampler
    try:
        needed = _memory(run)
        speed = measured(run)
    except RuntimeError as error:
        explained = out_of_memory(error, config.batch_size, data.train_size, recompute=config.recompute)
        if explained is None:
            raise
        raise explained from error
    epochs = config.epochs - config.start_epoch
    images = sampler.steps_per_epoch * sampler.global_batch
    evaluations = -(-epochs // config.eval_every)
    count = workers(config.num_parallel_workers)
    return Plan(
        parameters=parameters(run.architecture),
        macs=macs(run.architecture, data.train_size),
        steps_per_epoch=sampler.steps_per_epoch,
        steps=epochs * sampler.steps_per_epoch,
        epochs=epochs,
        evaluations=evaluations,
        memory=needed,
        speed=speed,
        bound_by="data" if speed.waited >= _WAITED else "compute",
        remedy=reading_bound(
            10**6, 10**6 / speed.later, speed.waited * 10**6 / speed.later, count, cores_of_this_process()
        ),
        training_seconds=images / speed.first + (epochs - 1) * images / speed.later,
        evaluation_seconds=evaluations * len(data.val) / speed.evaluation,
        disk=_disk(run, needed, epochs),
        disk_free=shutil.disk_usage(existing(Path(config.ckpt_root_dir))).free,
    )


def _memory(run: ResolvedRun) -> Memory:
    """Measured on an eager step."""
    with trial(run) as tried:
        step, state = tried.peak(), tried.state
        moments = [value for values in state.optimizer.state.values() for value in values.values()]
        free: int | None
        if run.device.type == "cuda":
            free = torch.cuda.mem_get_info(run.device)[0]
        else:
            known = memory()
            free = None if known is None else known[1]
        return Memory(
            _bytes(list(state.model.state_dict().values())),
            _bytes(moments),
            0 if state.ema is None else _bytes(list(state.ema.weights().values())),
            step,
            free,
        )


def _bytes(values: list[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def _disk(run: ResolvedRun, needed: Memory, epochs: int) -> int:
    """Of all that a run leaves; while it saves, another checkpoint stands beside those that are kept."""
    config = run.config
    checkpoint = needed.weights + needed.optimizer + needed.average
    best = needed.average or needed.weights
    lines = epochs * run.sampler.steps_per_epoch // config.summary_loss_collect_freq
    log = lines * _LINE * (1 + len(config.log_to)) + len(run.data.val) * _ANSWER
    return min(config.ckpt_keep_num, epochs) * checkpoint + best + log + (_REPORT if config.report else 0)
