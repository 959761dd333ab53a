"""The network of a run: freshly initialised or from weights, frozen or not, compiled, and wrapped for processes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convmixer.arch import Architecture, architecture
from convmixer.config.loading import DEFAULT, Resolved
from convmixer.config.schema import Config
from convmixer.distributed import Processes
from convmixer.model import ConvMixer
from convmixer.progress import note
from convmixer.weights.load import complete, load_into
from convmixer.weights.read import WeightFile, read_weights


def create_network(resolved: Resolved[Config], num_classes: int) -> ConvMixer:
    """A ConvMixer initialised by the seed, then filled with `pretrained` where that is given; on the CPU.

    Its head is new where the weights have another number of classes. Raises UserError where weights and options do
    not fit.
    """
    config = resolved.options
    weights = read_weights(config.pretrained) if config.pretrained else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ConvMixer(_architecture(resolved, weights, num_classes))
    if weights is not None:
        if not config.exclude_epoch_state:
            note("exclude_epoch_state: pretrained takes over weights only; --resume continues a run")
        for line in (f"weights from {weights.path} ({weights.source})", *load_into(model, weights, replace_head=True)):
            note(line)
    if config.freeze:
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model


def _architecture(resolved: Resolved[Config], weights: WeightFile | None, num_classes: int) -> Architecture:
    config = resolved.options
    given = {name: getattr(config, name) for name in ("kernel_size", "patch_size", "activation")}
    if weights is None:
        return architecture(config.arch, **given, num_classes=num_classes, in_chans=config.in_chans)
    arch = None if resolved.origins["arch"] == DEFAULT else config.arch
    found, notes = complete(weights, arch, **given)
    for line in notes:
        note(line)
    return replace(found, num_classes=num_classes)


def wrap(model: ConvMixer, config: Config, device: torch.device, processes: Processes) -> nn.Module:
    """What the step calls: the model itself, compiled where asked and possible, in DDP where there are processes."""
    network: nn.Module = model
    if config.compile and _can_compile(device):
        network = torch.compile(model)  # type: ignore[assignment]
    if processes.count > 1:
        ids = [device.index] if device.type == "cuda" else None
        # A bucket rebuild after the first step changes the order of sums between a run and its resumed twin; telling
        # DDP that parameters may be unused keeps the buckets as they are (three Gloo processes differ without it).
        network = DistributedDataParallel(network, device_ids=ids, find_unused_parameters=True)
    return network


def _can_compile(device: torch.device) -> bool:
    """Whether torch.compile works here, tried on a sum: it needs a C++ compiler for the CPU, Triton for a GPU."""
    try:
        torch.compile(lambda x: x + 1, fullgraph=True)(torch.zeros(2, device=device))
    except Exception as error:  # whatever the compiler's tool chain raises, the run can go on without it
        reason = str(error).strip().splitlines()[0][:120]
        note(f"compile: not possible here, running without ({type(error).__name__}: {reason})")
        return False
    return True
