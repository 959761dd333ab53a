"""The network of a run, new or from weights, and how it is called in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from convmixer.devices import memory_format
from convmixer.model import ConvMixer
from convmixer.randomness import Stream, uniforms
from convmixer.training.filter_init import draw_filters
from convmixer.training.sync_batchnorm import synchronise
from convmixer.weights.load import load_into

if TYPE_CHECKING:  # a step itself needs no options, nor what checks them
    from convmixer.training.resolved_run import ResolvedRun


def create_network(run: ResolvedRun, say: Callable[[str], None]) -> ConvMixer:
    """The run's ConvMixer on its device, initialised by the seed, then filled with the weights, if any.

    Its head keeps the rows of classes that the weights know by name. `say` gets a line on what was taken over.
    """
    config, weights = run.config, run.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ConvMixer(run.architecture)
        if config.filter_init == "covariance":
            draw_filters(model)
    if weights is not None:
        if not config.exclude_epoch_state:
            say("exclude_epoch_state: pretrained takes over weights only; --resume continues a run")
        say(f"weights from {weights.path} ({weights.source})")
        for line in load_into(model, weights, replace_head=True, classes=run.data.classes):
            say(line)
    if config.sync_bn and run.processes.count > 1:
        synchronise(model, run.device)
    return model.to(run.device).to(memory_format=memory_format(run.architecture.kernel_size, run.device))


def training_mode(network: nn.Module, model: ConvMixer, frozen: bool) -> None:
    """Put the network that runs a model into training mode, all but what is frozen."""
    network.train()
    if frozen:
        # Frozen BatchNorm keeps its statistics too: the features stay those that were trained.
        model.stem.eval()
        model.blocks.eval()


def forward_head(model: ConvMixer, images: torch.Tensor) -> torch.Tensor:
    """Logits of images, with gradients of the head alone: the rest is not part of the graph."""
    with torch.no_grad():
        features = model.features(images)
    logits: torch.Tensor = model.head(features)
    return logits


def drop_path_factors(rate: float, depth: int, images: int, *counters: int) -> np.ndarray:
    """Factors float32 [depth, images] of the residual branches: 0, or 1 / (1 - p) where the branch is kept.

    Stochastic depth (Huang et al., 2016, https://arxiv.org/abs/1603.09382): block l of 1 to depth leaves the branch of
    an image out with p = rate * l / depth. The factor keeps the mean, so that nothing is scaled in evaluation. A pure
    function of `counters`, which are a seed, a step and whatever else tells draws apart.
    """
    rates = rate * np.arange(1, depth + 1)[:, None] / depth
    draws = uniforms(images, Stream.DROP_PATH, *counters, np.arange(depth))
    return np.where(draws < rates, 0.0, 1.0 / (1.0 - rates)).astype(np.float32)
