"""Tiny networks whose every tensor is random and distinct, the counters included."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from convmixer.arch import Architecture
from convmixer.model import ConvMixer
from convmixer.weights.layouts import from_native

MakeModel = Callable[..., ConvMixer]


def as_timm(state: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a network of two blocks by timm's names, a prefix before each."""
    return {prefix + theirs: state[ours] for ours, theirs in from_native(state, "timm", 2).items()}


@pytest.fixture
def tiny() -> MakeModel:
    """A ConvMixer 8/2 (kernel 3, patch 2) with the given fields of Architecture in place."""

    def make(seed: int = 0, **options: object) -> ConvMixer:
        torch.manual_seed(seed)
        shape = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2, "num_classes": 10}
        model = ConvMixer(Architecture(**{**shape, **options})).eval()  # type: ignore[arg-type]
        for count, tensor in enumerate(model.state_dict().values()):
            tensor.uniform_(0.5, 1.5) if tensor.is_floating_point() else tensor.fill_(count)
        return model

    return make
