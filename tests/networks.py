"""What tests of several parts do to a network, and what they see of its operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@torch.no_grad()
def randomise_batch_norm(model: nn.Module, *, both_signs: bool = False) -> None:
    """Far from a new network's: scales, where asked for of both signs, and random shifts and running statistics."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.weight.normal_() if both_signs else norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)


class Operations(TorchDispatchMode):
    """Within it `calls` takes each operation that reaches torch's kernels: function, arguments, options, results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, results))
        return results
