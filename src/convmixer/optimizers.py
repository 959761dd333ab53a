"""The optimizers by their names, without torch, so that the options know the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OptimizerEntry:
    """`cls`: the full name of a class of torch's kind; `arguments`: its keywords and the options that they come from.

    `has_fused`: it takes `fused`, as torch's own. That step alone honours `found_inf`, by which a step whose numbers
    are not finite is left out on the device without waiting for it (`training.optimizer.honours_found_inf`). With
    another optimizer each step's numbers are waited for and checked before its update.

    `zero_state`: a moment that is to start as zeros. torch leaves it to the first step, which the device may skip: it
    would then start as uninitialised memory.
    """

    cls: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    has_fused: bool = False
    zero_state: str | None = None


_MOMENTS = {"betas": "beta", "eps": "eps"}
_SGD = OptimizerEntry("torch.optim.SGD", {"momentum": "momentum"}, has_fused=True, zero_state="momentum_buffer")

OPTIMIZERS = {
    "adamw": OptimizerEntry("torch.optim.AdamW", _MOMENTS, has_fused=True),
    "adam": OptimizerEntry("torch.optim.Adam", _MOMENTS, has_fused=True),
    "sgd": _SGD,
    "momentum": _SGD,
}
