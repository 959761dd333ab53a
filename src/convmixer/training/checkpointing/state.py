"""Everything of a run that must survive a stop, in one place: what is not here is a pure function of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from convmixer.model import ConvMixer
from convmixer.training.ema import Average
from convmixer.training.loss_scaler import LossScaler
from convmixer.training.optimizer import take_layout


@dataclass
class TrainState:
    """The resumable state of training after `step` optimizer steps.

    `best_top1` is None before the first evaluation; `evaluated_step` is the step after which the last one was made,
    before the first the step that the run starts at; `evaluations_since_best` counts those without a better score;
    `log_bytes` is the length of metrics.jsonl, to which a resumed run cuts it back; `backend` and `evaluation_backend`
    are how the network is trained and evaluated (`way` and `evaluation_way` in the file), which changes the last bits
    of what is computed.
    """

    model: ConvMixer
    optimizer: torch.optim.Optimizer
    scaler: LossScaler
    ema: Average | None = None
    step: int = 0
    best_top1: float | None = None
    evaluated_step: int = 0
    evaluations_since_best: int = 0
    log_bytes: int = 0
    backend: str | None = None
    evaluation_backend: str | None = None

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that are evaluated, kept as best and exported: the averaged ones where there are any."""
        return self.model.state_dict() if self.ema is None else self.ema.weights()

    def counters(self) -> dict[str, Any]:
        """All but the two sets of weights, as plain values and tensors."""
        return {
            "step": self.step,
            "best_top1": self.best_top1,
            "evaluated_step": self.evaluated_step,
            "evaluations_since_best": self.evaluations_since_best,
            "log_bytes": self.log_bytes,
            "way": self.backend,
            "evaluation_way": self.evaluation_backend,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": None if self.ema is None else self.ema.updates,
        }

    def restore(
        self, model: Mapping[str, torch.Tensor], ema: Mapping[str, torch.Tensor] | None, counters: dict[str, Any]
    ) -> None:
        """Take over what a checkpoint holds.

        Raises ValueError, in a few words, or an error of torch where it is not what `counters` gave.
        """
        _check(counters, self.optimizer, averaged=self.ema is not None and ema is not None)
        self.model.load_state_dict(dict(model))
        settings = [set(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(counters["optimizer"])
        # What an older version of the same optimizer lacks, torch has filled in.
        if any(names - group.keys() for names, group in zip(settings, self.optimizer.param_groups, strict=True)):
            raise ValueError("its optimizer is another one")
        take_layout(self.optimizer)
        self.scaler.load_state_dict(counters["scaler"])
        if self.ema is not None and ema is not None:
            self.ema.restore(ema, counters["ema_updates"])
        elif self.ema is not None:
            # A run that was started without an average begins one from the weights that it has now.
            self.ema.restore(model, 0)
        self.step = counters["step"]
        self.best_top1 = counters["best_top1"]
        self.evaluated_step = counters["evaluated_step"]
        self.evaluations_since_best = counters.get("evaluations_since_best", 0)  # older checkpoints have none
        self.log_bytes = counters["log_bytes"]


def _check(counters: Mapping[str, Any], optimizer: torch.optim.Optimizer, *, averaged: bool) -> None:
    """Raises ValueError for what torch would take and the training trip over."""
    for name in ("step", "best_top1", "evaluated_step", "log_bytes", "optimizer", "scaler", "ema_updates"):
        if name not in counters:
            raise ValueError(f"it has no {name}")
    for name in ("step", "evaluated_step", "log_bytes", *(["ema_updates"] if averaged else [])):
        if type(counters[name]) is not int:
            raise ValueError(f"its {name} is no whole number")
    if type(counters.get("evaluations_since_best", 0)) is not int:
        raise ValueError("its evaluations_since_best is no whole number")
    if counters["step"] < 0 or counters["log_bytes"] < 0:
        raise ValueError("its step or log_bytes is below 0")
    named = all(isinstance(counters.get(name), str | None) for name in ("way", "evaluation_way"))
    if not isinstance(counters["best_top1"], float | int | None) or not named:
        raise ValueError("its best_top1 or backend is of another type")
    scaler, saved = counters["scaler"], counters["optimizer"]
    if not isinstance(scaler, dict) or not all(isinstance(value, float | int) for value in scaler.values()):
        raise ValueError("its scaler is no dictionary of numbers")
    if len(optimizer.param_groups) != len(saved["param_groups"]):
        raise ValueError("its optimizer is another one")
    for own, group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for name, value in own.items():
            if isinstance(value, float) and not isinstance(group.get(name, value), float | int):
                raise ValueError(f"its optimizer's {name} is no number")
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    for index, moments in saved["state"].items():
        for name, moment in moments.items():
            if isinstance(moment, torch.Tensor):
                fits = moment.ndim == 0 or moment.shape == shapes[index]
            else:
                fits = isinstance(moment, float | int | None)
            if not fits:
                raise ValueError(f"its optimizer's {name} does not fit parameter {index}")
