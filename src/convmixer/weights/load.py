"""From a weight file to a model: what the file does not say is asked for, what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import torch

from convmixer.arch import (
    ACTIVATIONS,
    VARIANTS,
    Activation,
    Architecture,
    ArchitectureHints,
    Shape,
    parse_arch,
)
from convmixer.data.classes import ClassMap
from convmixer.errors import UserError
from convmixer.model import ConvMixer
from convmixer.weights.head import head_for
from convmixer.weights.read import WeightFile

_Model = TypeVar("_Model", bound=ConvMixer)
_NAMES_SHOWN = 6


def load_into(
    model: ConvMixer, weights: WeightFile, *, replace_head: bool = False, classes: ClassMap | None = None
) -> list[str]:
    """Copy the weights into the model, in the model's types and on its device. Returns notes for the user.

    Raises UserError for a file that lacks or adds a name, with both lists, or whose shapes are others. A head of
    another number of classes is refused too; with `replace_head` the rows of `classes` that the weights know by name
    are taken over, the others stay the model's own (see `head.head_for`).
    """
    state, notes = _fitting(model, weights, replace_head, classes)
    model.load_state_dict(state)
    return notes


def _fitting(
    model: ConvMixer, weights: WeightFile, replace_head: bool, classes: ClassMap | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A state dict that fits the model, and notes; UserError where there is none. The model is left as it is."""
    own, state, notes = model.state_dict(), dict(weights.state), list[str]()
    if weights.headless:
        if not replace_head:
            raise _no_head(weights)
        state |= {name: tensor for name, tensor in own.items() if name.startswith("head.")}
        notes.append(f"{weights.path}: has no head; the new one has {model.arch.num_classes} classes.")
    lacking, added = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if lacking or added:
        raise UserError(f"{weights.path}: lacks {_shown(lacking)}; adds {_shown(added)}.")
    wanted, found = model.arch.num_classes, weights.shape.num_classes
    if replace_head and not weights.headless:
        head, notes = head_for(own, weights, classes)
        state |= head
    elif not replace_head and wanted != found:
        raise UserError(f"{weights.path}: its head has {found} classes, the model {wanted}.")
    other = [
        f"{name} {_form(state[name])}, not {_form(own[name])}" for name in own if _form(state[name]) != _form(own[name])
    ]
    if other:
        raise UserError(f"{weights.path}: holds {_shown(other)}.")
    return state, notes


def _no_head(weights: WeightFile) -> UserError:
    return UserError(f"{weights.path}: has no head, so it answers in no classes; train one: train --pretrained.")


def build(weights: WeightFile, architecture: Architecture, make: Callable[[Architecture], _Model]) -> _Model:
    """The network that `make` makes, with these weights, on the CPU in eval mode. Raises UserError as `load_into`.

    No random numbers are drawn for values that the file replaces, and no memory is taken before it is seen to fit.
    """
    model, state = _checked(weights, architecture, make, replace_head=False)
    model.to_empty(device="cpu").load_state_dict(state)
    return model.eval()


def check(weights: WeightFile, architecture: Architecture) -> None:
    """Refuse weights that `load_into` with `replace_head` would refuse, before a network takes memory."""
    _checked(weights, architecture, ConvMixer, replace_head=True)


def _checked(
    weights: WeightFile, architecture: Architecture, make: Callable[[Architecture], _Model], *, replace_head: bool
) -> tuple[_Model, dict[str, torch.Tensor]]:
    """The network without memory, and the state dict that fits it."""
    if weights.headless and not replace_head:
        raise _no_head(weights)
    with torch.device("meta"):
        model = make(architecture)
    state, _ = _fitting(model, weights, replace_head)
    return model, state


def complete(
    weights: WeightFile,
    hints: ArchitectureHints = ArchitectureHints(),  # noqa: B008  (frozen)
) -> tuple[Architecture, list[str]]:
    """The whole architecture of a weight file, and notes on what was taken from elsewhere.

    All but the activation is read from the shapes, with which the hints must agree. The activation is the hints', else
    the file's, else that of their `arch`, else that of the one named variant whose shapes these are. In MindSpore
    `gelu` is the tanh form, so it becomes `gelu_tanh` unless the hints say otherwise. Raises UserError.
    """
    arch, hinted = hints.arch, hints.activation
    _check_agreement(weights, hints)
    if hinted is not None and hinted not in ACTIVATIONS:
        raise UserError(f"activation: {hinted!r} is none of {', '.join(ACTIVATIONS)}.")
    if hinted and weights.activation and hinted != weights.activation:
        raise UserError(f"{weights.path}: was trained with activation {weights.activation}, not {hinted}.")
    if hinted or weights.activation:
        return weights.shape.with_activation(cast(Activation, hinted or weights.activation)), []

    named = [parse_arch(arch)] if arch else [v for v in VARIANTS.values() if _same_network(v, weights.shape)]
    if len(named) != 1:
        raise UserError(
            f"{weights.path}: {weights.shape} does not say its activation; "
            f"give --activation ({', '.join(ACTIVATIONS)}), or --arch."
        )
    activation = named[0].activation
    notes = [] if arch else [f"{weights.path}: taken for {named[0].name} by its shapes, activation {activation}."]
    if weights.source == "mindspore" and activation == "gelu":
        activation = "gelu_tanh"
        notes.append(f"{weights.path}: MindSpore computes GELU in its tanh form, so gelu_tanh is used.")
    return weights.shape.with_activation(activation), notes


def _check_agreement(weights: WeightFile, hints: ArchitectureHints) -> None:
    found, arch = weights.shape, hints.arch
    given = {name: value for name, value in hints.given.items() if name != "activation"}
    for name, value in given.items():
        if value != getattr(found, name):
            raise UserError(f"{weights.path}: its {name} is {getattr(found, name)}, not {value} as asked for.")
    if arch is None:
        return
    named = parse_arch(arch)
    # A bare convmixer_<dim>_<depth> names no kernel; a variant's may have been changed by an option, as the file tells.
    changed = given.keys() & {"kernel_size", "patch_size"}
    says_all = "_ks" in arch or (arch in VARIANTS and weights.activation is None and not changed)
    same = _same_network(named, found) if says_all else (named.dim, named.depth) == (found.dim, found.depth)
    if not same:
        raise UserError(f"{weights.path}: its shapes are those of {found}, not of {arch} as asked for.")


def _same_network(arch: Architecture, shape: Shape) -> bool:
    names = ("dim", "depth", "kernel_size", "patch_size")
    return all(getattr(arch, name) == getattr(shape, name) for name in names)


def _form(tensor: torch.Tensor) -> str:
    """Shape and type of number; a float of another width is converted, a whole number never becomes a weight."""
    return f"{'float' if tensor.is_floating_point() else 'integer'} {list(tensor.shape)}"


def _shown(names: Iterable[str]) -> str:
    """The first names of a list, what is not printable escaped."""
    listed = [name if name.isprintable() else ascii(name) for name in names]
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return (", ".join(listed[:_NAMES_SHOWN]) or "nothing") + more
