"""The optimizer, and which parameters decay: chosen by the type of module that owns them, never by their names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convmixer.errors import UserError, first_line
from convmixer.optimizers import OPTIMIZERS, ParameterKind, refuse_missing

if TYPE_CHECKING:
    from convmixer.config.optimizer import OptimizerOptions

_DECAYING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# torch has a fused step for other devices too; these are the two on which it is checked against the plain one.
_FUSED_DEVICES = {"cpu", "cuda"}


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    decay_all: bool = False,
    arguments: Mapping[ParameterKind, Mapping[str, object]] | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: weights of convolutions and linear layers decay, all other parameters do not.

    With `decay_all` all decay, as in the authors' CIFAR-10 script (locuslab/convmixer-cifar10). Only parameters with
    requires_grad; a group that would be empty is left out. A wrapper (DDP, a compiled module)
    gives the groups of what it wraps. `arguments`: what else the optimizer is told of the parameters of a kind.
    """
    given = arguments or {}
    settings = {kind: (decay_all or kind != "other", tuple(given.get(kind, {}).items())) for kind in _KINDS}
    # Kinds with the same settings share a group, in the order of the modules.
    members: dict[tuple[bool, tuple[tuple[str, object], ...]], list[nn.Parameter]] = {
        setting: [] for setting in settings.values()
    }
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                members[settings[_kind(module, name, parameter)]].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, **dict(more)}
        for (decays, more), parameters in members.items()
        if parameters
    ]


_KINDS: tuple[ParameterKind, ...] = ("square", "weight", "other")


def _kind(module: nn.Module, name: str, parameter: nn.Parameter) -> ParameterKind:
    if name != "weight" or not isinstance(module, _DECAYING):
        return "other"
    rows, columns, *window = parameter.shape
    return "square" if rows == columns and window and set(window) == {1} else "weight"


def create_optimizer(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer of `optimizers.OPTIMIZERS` over `parameter_groups`; move the model to its device first.

    The step of torch's own is its fused kernel on a CPU or a CUDA GPU: one pass over the parameters, and a step that a
    loss scaler skips is skipped there without waiting for the device. It agrees with the plain one to the rounding of
    fp32. The learning rate is set before each step (`set_lr`). Raises UserError when no parameter requires a gradient,
    when the optimizer's package is not installed, and for a value of an option that the optimizer does not take.
    """
    entry = OPTIMIZERS[options.optimizer]
    groups = parameter_groups(model, options.weight_decay, decay_all=options.decay_all, arguments=entry.group_arguments)
    if not groups:
        raise UserError("freeze: no parameter is left to train; freeze less.")
    refuse_missing(options.optimizer)
    arguments = {keyword: getattr(options, name) for keyword, name in entry.arguments.items()} | dict(entry.fixed)
    if entry.has_fused and groups[0]["params"][0].device.type in _FUSED_DEVICES:
        arguments["fused"] = True
    module, _, name = entry.cls.rpartition(".")
    try:
        optimizer: torch.optim.Optimizer = getattr(import_module(module), name)(groups, lr=0.0, **arguments)
    except ValueError as error:
        raise UserError(f"optimizer: {options.optimizer}: {first_line(error)}") from None
    if entry.zero_state is not None and options.momentum > 0:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            optimizer.state[parameter][entry.zero_state] = torch.zeros_like(parameter)
    return optimizer


def honours_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step changes nothing where its attribute `found_inf`, a scalar on the device, is 1.

    By torch's own flag, which its fused steps set and GradScaler goes by. Other steps do not look at the attribute.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def take_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay the optimizer's moments out in memory as their parameters are.

    A fused step takes both for granted to be laid out alike: on a CPU it otherwise updates an element by another's
    moments. They differ after a resume in another way of running the network than the checkpoint's.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim() > 0:
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step, for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
