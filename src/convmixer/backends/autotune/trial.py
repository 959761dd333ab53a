"""One pass of a workload on random images: what is timed, and what a network is tried on before a run depends on it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convmixer.backends.workload import Workload


def random_batch(workload: Workload) -> tuple[Tensor, Tensor]:
    """Images and labels of the workload's shapes on its device, always the same; global generators stay as they are.

    The images lie in channels_last memory, as those of training and evaluation do.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (workload.batch_size, workload.arch.in_chans, workload.image_size, workload.image_size)
    images = torch.randn(shape, generator=generator).to(workload.device, memory_format=torch.channels_last)
    return images, torch.randint(workload.arch.num_classes, shape[:1], generator=generator).to(workload.device)


def try_training(
    network: nn.Module, model: nn.Module, workload: Workload, training_mode: Callable[[nn.Module], None]
) -> None:
    """A forward and a backward pass of `network`, which runs `model`, in the mode that `training_mode(network)` sets.

    Afterwards the model is as before, to the bit: statistics, modes, no gradients. Raises whatever the passes raise.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with kept(model):
            training_mode(network)
            images, labels = random_batch(workload)
            with workload.autocast():
                logits = network(images)
            nn.functional.cross_entropy(logits.float(), labels).backward()
            wait(workload.device)
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        for module, training in modes:
            module.training = training


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Within the context BatchNorm's statistics may move; afterwards they are as before, in the same memory."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device's memory is too small; on a CPU torch has no type of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give the device the memory back of networks that are gone: a graph's is kept by cycles of references."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
