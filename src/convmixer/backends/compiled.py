"""torch.compile, and where there is what it needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convmixer.backends.padding import in_batches
from convmixer.backends.workload import Workload
from convmixer.model import ConvMixer


class CompiledConvMixer(nn.Module):
    """torch.compile for batches of one size; inference splits and fills up batches of other sizes.

    For inference the weights become constants of the program, repacked for the processor (inductor's freezing).
    """

    def __init__(self, model: ConvMixer, workload: Workload, options: dict[str, Any]) -> None:
        super().__init__()
        self.batch_size, self.fixed = workload.batch_size, not workload.training
        self.model = model
        self.compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False, options=options)

    def forward(self, images: Tensor) -> Tensor:
        if not self.fixed:
            return self.compiled(images)
        return in_batches(self.compiled, images, self.batch_size)


def has_compiler() -> bool:
    """Whether there is a C++ compiler, without which torch.compile makes nothing for a CPU."""
    return any(map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++", "cl")))


def compile_applies(workload: Workload) -> bool:
    """Whether torch.compile makes a network for this workload."""
    if workload.recompute:  # a compiler decides by itself what it keeps
        return False
    if workload.device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return workload.device.type != "cpu" or has_compiler()
