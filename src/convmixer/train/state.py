"""Everything of a run that must survive a stop, in one place: what is not here is a pure function of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from convmixer.model import ConvMixer
from convmixer.train.ema import Ema
from convmixer.train.precision import LossScaler


@dataclass
class TrainState:
    """The resumable state of training after `step` optimizer steps.

    `best_top1` is None before the first evaluation; `evaluated_step` is the step after which the last one was made,
    before the first the step that the run starts at;
    `log_bytes` is the length of metrics.jsonl, to which a resumed run cuts it back; `way` is how the network is run,
    which changes the last bits of what is computed.
    """

    model: ConvMixer
    optimizer: torch.optim.Optimizer
    scaler: LossScaler
    ema: Ema | None = None
    step: int = 0
    best_top1: float | None = None
    evaluated_step: int = 0
    log_bytes: int = 0
    way: str | None = None

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that are evaluated, kept as best and exported: the averaged ones where there are any."""
        return self.model.state_dict() if self.ema is None else self.ema.weights()

    def counters(self) -> dict[str, Any]:
        """All but the two sets of weights, as plain values and tensors."""
        return {
            "step": self.step,
            "best_top1": self.best_top1,
            "evaluated_step": self.evaluated_step,
            "log_bytes": self.log_bytes,
            "way": self.way,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.updates,
        }

    def restore(
        self, model: Mapping[str, torch.Tensor], ema: Mapping[str, torch.Tensor] | None, counters: dict[str, Any]
    ) -> None:
        """Take over what a checkpoint holds."""
        self.model.load_state_dict(dict(model))
        self.optimizer.load_state_dict(counters["optimizer"])
        self.scaler.load_state_dict(counters["scaler"])
        if self.ema is not None and ema is not None:
            self.ema.restore(ema, counters["ema_updates"])
        elif self.ema is not None:
            # A run that was started without an average begins one from the weights that it has now.
            self.ema.restore(model, 0)
        self.step = counters["step"]
        self.best_top1 = counters["best_top1"]
        self.evaluated_step = counters["evaluated_step"]
        self.log_bytes = counters["log_bytes"]
        self.way = counters["way"]
