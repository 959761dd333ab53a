"""The average of the weights that a schedule-free optimizer keeps, in the place of the exponential moving one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from convmixer.training.ema import clones, write


class OptimizerAverage:
    """What `optimizer.eval()` makes of a model's weights, under the model's own names (`training.ema.Average`).

    BatchNorm's statistics are those of the training. They belong to the weights that are trained, which lie a tenth of
    the way (1 - beta[0]) from the average to the optimizer's own iterate: at the end of a run that is close.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        self.updates = 0
        # Neither method is of torch's own class.
        self._optimizer: Any = optimizer
        self._model = model

    def update(self, model: nn.Module, skip: torch.Tensor | None = None) -> None:
        """Nothing but a count: the optimizer's step has moved the average."""
        self.updates += 1

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model has the averaged weights; afterwards its own again, to the bit.

        The optimizer's way back would round: a run that is evaluated or saved more often would become another one.
        """
        own = clones(model)
        self._optimizer.eval()
        try:
            yield
        finally:
            self._optimizer.train()
            write(model, own)

    def weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights under the model's names: copies."""
        with self.applied(self._model):
            return clones(self._model)

    def restore(self, weights: Mapping[str, torch.Tensor], updates: int) -> None:
        """Take over the count; the average itself is in the optimizer's state and the model's weights."""
        self.updates = updates
