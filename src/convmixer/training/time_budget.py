"""`--time_budget`: as many epochs as fit into it, by a measurement of some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from convmixer.arch import architecture
from convmixer.augment.pipeline import Augmentation
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.data.batch_sampler import BatchSampler
from convmixer.devices import memory_format
from convmixer.distributed.processes import Processes
from convmixer.errors import UserError
from convmixer.machine import cores_of_this_process, workers
from convmixer.model import ConvMixer
from convmixer.precision import Precision
from convmixer.terminal.progress import duration
from convmixer.training.datasets import TrainingData, train_reader
from convmixer.training.loss import soft_cross_entropy

ORIGIN = "measured for time_budget"
_SECONDS = 4.0  # of each of the two measurements, at most
_SHARE = 0.9  # of the budget, for training; evaluations, saves and the start have the rest


def within_budget(
    resolved: Resolved[Config],
    data: TrainingData,
    device: torch.device,
    processes: Processes,
    say: Callable[[str], None],
) -> Resolved[Config]:
    """The options, with as many epochs as fit into the budget, at least one.

    Raises UserError where the command line asks for a number of epochs too.
    """
    config = resolved.options
    if config.time_budget is None or resolved.goes_on:
        return resolved
    if resolved.is_explicit("epochs"):
        raise UserError("--time_budget: chooses the epochs, which --epochs gives; leave one of them out")
    sampler = BatchSampler(len(data.train), config.batch_size, config.seed, processes.count, config.accumulate)
    own = seconds_per_image(config, data, device)
    slowest = max(processes.gather(own))
    images = sampler.steps_per_epoch * sampler.global_batch / processes.count
    epoch = slowest * images
    epochs = max(int(_SHARE * config.time_budget / epoch), 1)
    say(f"time_budget {duration(config.time_budget)}: {epochs} epochs of about {duration(epoch)} ({ORIGIN})")
    if epoch > config.time_budget:
        say("a single epoch takes longer than that; --train_num_samples uses a part of the images")
    return resolved.changed({"epochs": epochs}, ORIGIN)


def seconds_per_image(config: Config, data: TrainingData, device: torch.device) -> float:
    """Of one training image, where reading and the network share the processor, or the slower of the two on a GPU."""
    reading, step = _reading(config, data), _step(config, data, device)
    if device.type == "cpu":
        return step + reading / cores_of_this_process()
    return max(step, reading / max(workers(config.num_parallel_workers), 1))


def _reading(config: Config, data: TrainingData) -> float:
    """Seconds that one process takes for one crop."""
    reader, start, count = train_reader(config, data), time.monotonic(), 0
    while count < 32 or (count < 256 and time.monotonic() - start < _SECONDS):
        reader.read(0, count * 97 % len(data.train))
        count += 1
    return (time.monotonic() - start) / count


def _step(config: Config, data: TrainingData, device: torch.device) -> float:
    """Seconds that an image takes in augmentation, forward and backward pass, by steps on one batch of pixels."""
    given = {name: getattr(config, name) for name in ("kernel_size", "patch_size", "activation")}
    channels = data.preprocessing.channels
    arch = architecture(config.arch, **given, num_classes=len(data.classes), in_chans=channels)
    with torch.random.fork_rng(devices=[]):
        model = ConvMixer(arch).to(device).to(memory_format=memory_format(arch.kernel_size, device)).train()
    augment = Augmentation(config, data.train_preprocessing, len(data.classes), config.seed, 0)
    generator, precision = torch.Generator().manual_seed(0), Precision.of(config, device)
    side, batch = data.train_size, config.batch_size
    pixels = torch.randint(0, 256, (batch, side, side, channels), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)

    def step(number: int) -> None:
        images, targets = augment(pixels, labels, torch.arange(batch).numpy(), 0.0, number)
        with precision.autocast():
            logits = model(images)
        soft_cross_entropy(logits, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()  # waits for the device
        model.zero_grad()

    for number in range(2):
        step(number)
    start, count = time.monotonic(), 0
    while count < 3 or (count < 50 and time.monotonic() - start < _SECONDS):
        step(count)
        count += 1
    return (time.monotonic() - start) / (count * batch)
