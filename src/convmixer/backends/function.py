"""A function over the model's own modules and parameters, called as a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from convmixer.model import ConvMixer


class FunctionOfModel(nn.Module):
    """Calls `function(model, images)`; its parameters are the model's, under the names `model.<name>`."""

    def __init__(self, model: ConvMixer, function: Callable[[ConvMixer, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self._function = model, function

    def forward(self, images: Tensor) -> Tensor:
        return self._function(self.model, images)
