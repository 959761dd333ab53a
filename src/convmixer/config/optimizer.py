"""Options of the optimizer, of the average of the weights, and of the schedule of the learning rate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from convmixer.config.options import Options, option
from convmixer.optimizers import OPTIMIZERS
from convmixer.schedules import SCHEDULES

# The registries say which there are.
if TYPE_CHECKING:
    OptimizerName = str
    ScheduleName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
    ScheduleName = Literal[tuple(SCHEDULES)]


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ScheduleOptions(Options):
    """Schedule"""

    epochs: int = option(300, "epochs of the whole run", other_names="e", ge=1)
    time_budget: float | None = option(
        None,
        "as 10m or 1.5h: as many epochs as a short measurement says fit into it",
        other_names="time max_time budget duration",
        affects_training=False,
        gt=0,
    )
    start_epoch: int = option(0, "start the schedule and the order at this epoch", ge=0)
    base_lr: float = option(0.001, "peak learning rate", other_names="lr learning_rate max_lr blr peak_lr", gt=0)
    warmup_lr: float = option(0.000007, "learning rate at the start of the warm-up", ge=0)
    min_lr: float = option(0.0, "the schedule never falls below", ge=0)
    lr_scheduler: ScheduleName = option("cosine_lr", "schedule of the learning rate", other_names="sched lr_policy")
    lr_gamma: float = option(0.97, "factor of exp_lr (per epoch) and multistep_lr (per lr_adjust epochs)", gt=0, le=1)
    lr_adjust: float = option(30.0, "epochs in which multistep_lr falls by lr_gamma", gt=0)
    lr_scaling: Literal["none", "linear"] = option("none", "linear: base_lr times global batch / 512")
    warmup_length: float = option(
        0.0, "epochs of linear warm-up", other_names="warmup warmup_steps warmup_epochs", ge=0
    )

    @field_validator("time_budget", mode="before")
    @classmethod
    def _budget_in_seconds(cls, value: Any) -> Any:
        """`90s`, `10m`, `1.5h` or `2d` as seconds; a bare number is seconds."""
        match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smhd])(?:in|ec|ours?|ays?)?", str(value).strip().lower())
        return float(match[1]) * _SECONDS[match[2]] if match else value


class OptimizerOptions(Options):
    """Optimizer"""

    optimizer: OptimizerName = option(
        "adamw",
        "sgd uses momentum too; muon is for patch embedding and pointwise filters, adamw for the rest",
        other_names="opt optim",
    )
    beta: tuple[float, float] = option(
        (0.9, 0.999), "decay of the moments of all but sgd; the first is the average's share in schedule_free"
    )
    eps: float = option(1e-8, "term in the denominator of all but sgd and lion", gt=0)
    momentum: float = option(0.9, "momentum of sgd, and of muon's matrices", ge=0, lt=1)
    weight_decay: float = option(
        0.0, "decay of convolution and head weights", flags=("--wd",), other_names="decay", ge=0
    )
    decay_all: bool = option(False, "decay biases and BatchNorm's parameters too")
    layer_decay: float = option(
        1.0, "factor of the learning rate from one layer to the one before it, the head's being 1", gt=0, le=1
    )
    use_clip_grad_norm: bool = option(False, "clip the norm of the gradient")
    clip_grad_norm: float = option(1.0, "maximum norm of the gradient", other_names="grad_clip gradient_clip_val", gt=0)
    with_ema: bool = option(
        False, "keep an average of the weights and evaluate, save and export it", other_names="ema model_ema"
    )
    ema_decay: float = option(0.9999, "decay of that average", other_names="model_ema_decay", ge=0, lt=1)

    @property
    def optimizer_averages(self) -> bool:
        """Whether the optimizer itself keeps an average of the weights, which takes the place of with_ema's."""
        return OPTIMIZERS[self.optimizer].averages

    @field_validator("beta")
    @classmethod
    def _betas_are_decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"is {value[0]:g} {value[1]:g}, both must be >= 0 and < 1")
        return value
