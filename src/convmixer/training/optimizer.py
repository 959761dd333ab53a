"""The optimizer, and which parameters decay: chosen by the type of module that owns them, never by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convmixer.errors import UserError, first_line
from convmixer.model import ConvMixer
from convmixer.optimizers import LR_SCALE, OPTIMIZERS, ParameterKind, refuse_missing

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
    layer_decay: float = 1.0,
    head_apart: bool = False,
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: weights of convolutions and linear layers decay, all other parameters do not.

    With `decay_all` all decay, as in the authors' CIFAR-10 script (locuslab/convmixer-cifar10). Only parameters with
    requires_grad; a group that would be empty is left out. A wrapper (DDP, a compiled module)
    gives the groups of what it wraps. `arguments`: what else the optimizer is told of the parameters of a kind.

    `layer_decay` F below 1, of a ConvMixer: each layer has groups of its own with an `lr_scale` of
    F ** (depth + 1 - layer), where the stem is layer 0, the blocks are 1 to depth and the head is depth + 1 (BEiT,
    https://arxiv.org/abs/2106.08254). `head_apart`: the head has groups of its own.
    """
    given = arguments or {}
    settings = {kind: (decay_all or kind != "other", tuple(given.get(kind, {}).items())) for kind in _KINDS}
    scales = _scales(model, layer_decay, head_apart=head_apart)
    # Kinds with the same settings share a group, in the order of the modules.
    members: dict[tuple[bool, tuple[tuple[str, object], ...], _Scale], list[nn.Parameter]] = {
        (*setting, scale): [] for scale in dict.fromkeys([*scales.values(), _Scale()]) for setting in settings.values()
    }
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                key = (*settings[_kind(module, name)], scales.get(id(parameter), _Scale()))
                members[key].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            **dict(more),
            **scale.beside(dict(more)),
        }
        for (decays, more, scale), parameters in members.items()
        if parameters
    ]


@dataclass(frozen=True)
class _Scale:
    """What tells groups of the same settings apart: the factor of the learning rate, and the head."""

    factor: float = 1.0
    head: bool = False

    def beside(self, settings: Mapping[str, Any]) -> dict[str, float]:
        """The factor of a group of such settings, which may have one of their own; none where it is 1."""
        factor = self.factor * settings.get(LR_SCALE, 1.0)
        return {} if factor == 1.0 else {LR_SCALE: factor}


def _scales(model: nn.Module, layer_decay: float, *, head_apart: bool) -> dict[int, _Scale]:
    """The scale of each parameter of a ConvMixer, by its id; empty where all have the same."""
    if layer_decay == 1.0 and not head_apart:
        return {}
    network = next(module for module in model.modules() if isinstance(module, ConvMixer))
    layers = [network.stem, *network.blocks, network.head]
    scales: dict[int, _Scale] = {}
    for number, layer in enumerate(layers):
        scale = _Scale(layer_decay ** (len(layers) - 1 - number), head_apart and layer is network.head)
        scales |= {id(parameter): scale for parameter in layer.parameters()}
    return scales


_KINDS: tuple[ParameterKind, ...] = ("matrix", "weight", "other")


def _kind(module: nn.Module, name: str) -> ParameterKind:
    if name != "weight" or not isinstance(module, _DECAYING):
        return "other"
    return "weight" if isinstance(module, nn.Linear) or module.groups > 1 else "matrix"


def create_optimizer(model: nn.Module, options: OptimizerOptions, *, head_apart: bool = False) -> torch.optim.Optimizer:
    """The optimizer of `optimizers.OPTIMIZERS` over `parameter_groups`; move the model to its device first.

    `head_apart`: some of its steps are of the head alone (`only_groups_of`).

    The step of torch's own is its fused kernel on a CPU or a CUDA GPU: one pass over the parameters, and a step that a
    loss scaler skips is skipped there without waiting for the device. It agrees with the plain one to the rounding of
    fp32. The learning rate is set before each step (`set_lr`). Raises UserError when no parameter requires a gradient,
    when the optimizer's package is not installed, and for a value of an option that the optimizer does not take.
    """
    entry = OPTIMIZERS[options.optimizer]
    groups = parameter_groups(
        model,
        options.weight_decay,
        decay_all=options.decay_all,
        arguments=entry.group_arguments,
        layer_decay=options.layer_decay,
        head_apart=head_apart,
    )
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
    """The learning rate of the next step, for every group times its `lr_scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SCALE, 1.0)


@contextmanager
def only_groups_of(optimizer: torch.optim.Optimizer, module: nn.Module) -> Iterator[None]:
    """Within the context the optimizer has only the groups whose parameters are the module's.

    Not only are the others left as they are: some optimizers count the steps of a group, which then begin when it
    takes part.
    """
    own, groups = {id(parameter) for parameter in module.parameters()}, optimizer.param_groups
    optimizer.param_groups = [group for group in groups if id(group["params"][0]) in own]
    try:
        yield
    finally:
        optimizer.param_groups = groups
