"""The optimizers by their names. torch is imported where one is made, so that the options know the names without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    Groups = list[dict[str, Any]]
    Make = Callable[["Groups", "Settings", bool | None], torch.optim.Optimizer]
    OptimizerName = str


@dataclass(frozen=True)
class Settings:
    """What the options say of an optimizer, beside the groups of parameters: each takes of it what it has."""

    lr: float
    beta: tuple[float, float]
    eps: float
    momentum: float


@dataclass(frozen=True)
class OptimizerEntry:
    """`make(groups, settings, fused)` gives an optimizer of torch; `fused` goes to its constructor.

    `has_fused`: torch has a fused step of it. That alone honours `found_inf`, by which a step whose numbers are not
    finite is left out on the device without waiting for it (`train.optimizer.honours_found_inf`). With another
    optimizer each step's numbers are waited for and checked before its update.
    """

    make: Make
    has_fused: bool


def _adamw(groups: Groups, settings: Settings, fused: bool | None) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.beta, eps=settings.eps, fused=fused)


def _adam(groups: Groups, settings: Settings, fused: bool | None) -> torch.optim.Optimizer:
    import torch

    return torch.optim.Adam(groups, lr=settings.lr, betas=settings.beta, eps=settings.eps, fused=fused)


def _sgd(groups: Groups, settings: Settings, fused: bool | None) -> torch.optim.Optimizer:
    import torch

    sgd = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=fused)
    if settings.momentum:
        # Zeros give the same first step; torch's own beginning, where that step is skipped on the device, is
        # uninitialised memory.
        for parameter in (parameter for group in groups for parameter in group["params"]):
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


OPTIMIZERS = {
    "adamw": OptimizerEntry(_adamw, has_fused=True),
    "adam": OptimizerEntry(_adam, has_fused=True),
    "sgd": OptimizerEntry(_sgd, has_fused=True),
    "momentum": OptimizerEntry(_sgd, has_fused=True),
}

if not TYPE_CHECKING:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
