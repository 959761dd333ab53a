"""Averages of a model's weights, which are what is evaluated, kept as best and exported; the exponential moving one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import nn

from convmixer.errors import UserError


class Average(Protocol):
    """An average beside the weights that are trained; `updates` counts the steps that it has seen."""

    updates: int

    def update(self, model: nn.Module, skip: torch.Tensor | None = None) -> None:
        """Follow the model after an optimizer step."""
        ...

    def applied(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the context the model has the averaged weights."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights under the model's names."""
        ...

    def restore(self, weights: Mapping[str, torch.Tensor], updates: int) -> None:
        """Go on from saved `weights()` and `updates`."""
        ...


class Ema:
    """Averaged copies of a model's parameters and BatchNorm statistics, under the model's own names.

    Update t = 0, 1, 2, ... does average += (1 - d) (weights - average), with d = min(decay, (1 + t) / (10 + t)): 0.1,
    2/11, 3/12, ... The model zoo and timm use `decay` from the first step; a run shorter than a few times
    1 / (1 - decay) steps then keeps mostly its random initial weights. With decay 0.9999 the two agree from update
    89,990 on. BatchNorm's counts of batches are copied, not averaged.

    `model` is the bare module everywhere here, not its DDP or compiled wrapper, whose names differ.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._weights: dict[str, torch.Tensor] = clones(model)

    def decay_of_update(self, t: int) -> float:
        """d of update t, counted from 0."""
        return min(self.decay, (1 + t) / (10 + t))

    @torch.no_grad()
    def update(self, model: nn.Module, skip: torch.Tensor | None = None) -> None:
        """One step of the average towards the model's weights. Call it after every optimizer step that was made.

        `skip`, a scalar on the device: where it is 1 the averages stay as they are, whatever the model's weights are,
        without waiting for the device (`updates` and the counts go on).
        """
        averages: list[torch.Tensor] = []
        currents: list[torch.Tensor] = []
        for name, current in model.state_dict().items():
            if current.is_floating_point():
                averages.append(self._weights[name])
                currents.append(current)
            else:
                self._weights[name].copy_(current)
        weight = 1.0 - self.decay_of_update(self.updates)
        if skip is None:
            torch._foreach_lerp_(averages, currents, weight)
        else:
            _descend(averages, list(torch._foreach_sub(averages, currents)), weight, skip)
        self.updates += 1

    def copy_to(self, model: nn.Module) -> None:
        """Write the averaged weights into the model, in place."""
        write(model, self._weights)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model has the averaged weights; afterwards its own again, to the bit, whatever happened.

        Costs one more copy of the weights while it lasts. What the block changes in the model's weights is lost.
        """
        own = clones(model)
        try:
            self.copy_to(model)
            yield
        finally:
            write(model, own)

    def weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights under the model's names: the live tensors, not copies."""
        return self._weights

    def restore(self, weights: Mapping[str, torch.Tensor], updates: int) -> None:
        """Go on from saved `weights()`, on any device, and `updates`. Raises UserError when the names are not these."""
        different = sorted(self._weights.keys() ^ weights.keys())
        if different:
            raise UserError(f"the averaged weights are another model's: {different[0]} is not in both.")
        for name, tensor in self._weights.items():
            tensor.copy_(weights[name])
        self.updates = updates


def _descend(weights: list[torch.Tensor], differences: list[torch.Tensor], lr: float, found_inf: torch.Tensor) -> None:
    """weights -= lr * differences, unless `found_inf` is 1: this is gradient descent on half the squared distance.

    The fused step of SGD, since a weight of 0 would not keep NaN out: 0 * NaN is NaN.
    """
    torch._fused_sgd_(
        weights,
        differences,
        [],
        weight_decay=0.0,
        momentum=0.0,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        found_inf=found_inf,
    )


def clones(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of a model's weights and statistics by their names."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def write(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy weights and statistics into a model."""
    for name, tensor in model.state_dict().items():
        tensor.copy_(weights[name])
