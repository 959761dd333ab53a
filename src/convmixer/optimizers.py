"""The optimizers by their names, without torch, so that the options know the names: to add one is to add an entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from convmixer.errors import UserError
from convmixer.packages import install_command

# A parameter's place: the filters of a convolution that mixes channels (the patch embedding, a pointwise convolution),
# which are a matrix; another weight of a convolution or linear layer; or what is neither, as a bias.
ParameterKind = Literal["matrix", "weight", "other"]
LR_SCALE = "lr_scale"  # of a group of parameters: the factor of the schedule's learning rate


@dataclass(frozen=True)
class OptimizerEntry:
    """`cls`: the full name of a class of torch's kind; `arguments`: its keywords and the options that they come from.

    `fixed`: keywords that have one value here; `group_arguments`: those of the parameters of a kind, among which
    `LR_SCALE` is no keyword, but multiplies their learning rate.

    `has_fused`: it takes `fused`, as torch's own. That step alone honours `found_inf`, by which a step whose numbers
    are not finite is left out on the device without waiting for it (`training.optimizer.honours_found_inf`). With
    another optimizer each step's numbers are waited for and checked before its update.

    `zero_state`: a moment that is to start as zeros. torch leaves it to the first step, which the device may skip: it
    would then start as uninitialised memory.

    `averages`: it trains beside an average of the weights, which its `eval()` puts into the model. That average is what
    is evaluated, kept as best and exported.
    """

    cls: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    group_arguments: Mapping[ParameterKind, Mapping[str, object]] = field(default_factory=dict)
    has_fused: bool = False
    zero_state: str | None = None
    averages: bool = False


_MOMENTS = {"betas": "beta", "eps": "eps"}
_SGD = OptimizerEntry("torch.optim.SGD", {"momentum": "momentum"}, has_fused=True, zero_state="momentum_buffer")
_BESIDE_MUON = {"use_muon": False, LR_SCALE: 0.4}

OPTIMIZERS = {
    # Decay beside the gradient, p -= lr * weight_decay * p (https://arxiv.org/abs/1711.05101).
    "adamw": OptimizerEntry("torch.optim.AdamW", _MOMENTS, has_fused=True),
    # The decay is added to the gradient (L2) and so goes through the moments.
    "adam": OptimizerEntry("torch.optim.Adam", _MOMENTS, has_fused=True),
    # v = momentum * v + gradient + weight_decay * p, p -= lr * v, without Nesterov. Momentum 0 is plain SGD.
    "sgd": _SGD,
    "momentum": _SGD,
    # p -= lr * (sign(b1 * m + (1 - b1) * gradient) + weight_decay * p), then m = b2 * m + (1 - b2) * gradient
    # (https://arxiv.org/abs/2302.06675).
    "lion": OptimizerEntry("pytorch_optimizer.Lion", {"betas": "beta"}),
    # u = m / (sqrt(v) + eps) + weight_decay * p, p -= lr * min(|p|, 10) / |u| * u, |.| the norm of a whole tensor
    # (https://arxiv.org/abs/1904.00962). Biases and BatchNorm's parameters, some of which begin as zeros, take plain u,
    # as in NVIDIA's and timm's LAMB. The moments are not corrected for their start, which the norm of u makes up for.
    "lamb": OptimizerEntry(
        "pytorch_optimizer.Lamb",
        _MOMENTS,
        {"weight_decouple": False, "adam_debias": True},
        {"other": {"adam": True}},
    ),
    # m = momentum * m + (1 - momentum) * gradient; p -= lr * (0.2 * sqrt(max(rows, columns)) * orthogonal(m with
    # Nesterov's step) + weight_decay * p) for the matrices, one row per output. That factor gives the update the size
    # of AdamW's (https://kellerjordan.github.io/posts/muon, https://arxiv.org/abs/2502.16982). All else takes AdamW, at
    # a lower rate: measured (benchmarks/NOTES.md, "Defaults that suit the data").
    "muon": OptimizerEntry(
        "pytorch_optimizer.Muon",
        {"momentum": "momentum", "adamw_betas": "beta", "adamw_eps": "eps"},
        {"use_adjusted_lr": True},
        {"matrix": {"use_muon": True}, "weight": _BESIDE_MUON, "other": _BESIDE_MUON},
    ),
    # z takes AdamW's steps without its first moment, from gradients at y = (1 - b1) * z + b1 * x, and x is the average
    # of all z (https://arxiv.org/abs/2405.15682).
    "schedule_free": OptimizerEntry("pytorch_optimizer.ScheduleFreeAdamW", _MOMENTS, averages=True),
}


def refuse_missing(name: str) -> None:
    """Raises UserError where the package of an optimizer is not installed."""
    package = OPTIMIZERS[name].cls.partition(".")[0]
    if package != "torch" and find_spec(package) is None:
        raise UserError(f"optimizer: {name} needs {package}, which is not installed: {install_command(package)}")
