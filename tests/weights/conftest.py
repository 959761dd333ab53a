"""Tiny networks whose every tensor is random and distinct, the counters included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convmixer.arch import Architecture
from convmixer.model import ConvMixer

MakeModel = Callable[..., ConvMixer]


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
