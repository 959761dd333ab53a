"""Activation checkpointing: of a block its input alone is kept, and the rest is computed again in the backward pass.

Chen et al., https://arxiv.org/abs/1604.06174. It costs a second forward pass: up to a third more time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recomputed(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`forward(x)`, the pass of a block that draws no random numbers; its backward pass begins with `forward(x)` again.

    The second time is under the first one's autocast and gives the same values, so that the gradients are the same to
    the bit where the operators are deterministic. The running statistics of the block's BatchNorms, plain or
    synchronised, move the first time alone. Every process of a run must recompute or none: a synchronised BatchNorm
    meets the others both times.
    """
    if not torch.is_grad_enabled():
        return forward(x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _ScratchStatistics(block)

    out: Tensor = checkpoint(forward, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return out


class _ScratchStatistics(AbstractContextManager[None]):
    """Within the context, which may be entered many times, BatchNorm moves copies of its running statistics.

    Copies, and not `track_running_stats` off: the second pass must save as many tensors as the first one did, and a
    BatchNorm in evaluation mode normalises by its statistics.
    """

    def __init__(self, block: nn.Module) -> None:
        self._norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.training]
        self._own: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self._own = [{name: getattr(norm, name) for name in _STATISTICS} for norm in self._norms]
        for norm, own in zip(self._norms, self._own, strict=True):
            for name, tensor in own.items():
                setattr(norm, name, None if tensor is None else tensor.clone())

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for norm, own in zip(self._norms, self._own, strict=True):
            for name, tensor in own.items():
                setattr(norm, name, tensor)
