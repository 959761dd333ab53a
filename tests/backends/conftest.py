"""A small network whose BatchNorm does something, and a cache folder of its own for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.networks import randomise_batch_norm
from torch import nn

from convmixer.backends.registry import Backend, BackendKind
from convmixer.backends.workload import Workload
from convmixer.model import ConvMixer, create_model

MakeModel = Callable[..., ConvMixer]
MakeWorkload = Callable[..., Workload]


def backend(name: str, build: Callable[[ConvMixer], nn.Module], kind: BackendKind = "fused", **more: Any) -> Backend:
    """A backend for every workload, which needs nothing but the model."""
    return Backend(name, kind, lambda workload: True, lambda model, workload, plan: build(model), **more)


EAGER = backend("eager, channels_last", lambda model: model, "eager")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def small_model() -> MakeModel:
    """Maker of a network with scales of both signs, shifts, and statistics that are not those of a new network."""

    def make(arch: str = "convmixer_32_2", **options: Any) -> ConvMixer:
        torch.manual_seed(0)
        model = create_model(arch, **{"kernel_size": 5, "patch_size": 2, "num_classes": 7, **options})
        randomise_batch_norm(model, both_signs=True)
        return model

    return make


@pytest.fixture
def workload_of() -> MakeWorkload:
    """Maker of a workload of a model: 16 x 16 images on the CPU."""

    def make(model: ConvMixer, training: bool = False, dtype: torch.dtype = torch.float32, batch: int = 4) -> Workload:
        return Workload(model.arch, 16, batch, dtype, training, torch.device("cpu"))

    return make
