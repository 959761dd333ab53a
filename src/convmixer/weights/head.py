"""The head of a model that starts from weights: the rows of classes that both know, found by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from convmixer.data.classes import ClassMap, composed
from convmixer.weights.read import WeightFile

WEIGHT, BIAS = "head.weight", "head.bias"
_NAMES_SHOWN = 3


def head_for(
    own: Mapping[str, torch.Tensor], weights: WeightFile, classes: ClassMap | None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The entries of the head, and notes; `own`: the model's state, whose new rows stay where the weights have none.

    `classes`: the model's, or None where they have no names. Weights that name no classes give their head whole where
    the numbers agree, and none of it else.
    """
    wanted, found = len(own[WEIGHT]), weights.shape.num_classes
    whole = {name: weights.state[name] for name in (WEIGHT, BIAS)}
    of_a_head = [whole[WEIGHT].shape == (found, own[WEIGHT].shape[1]), whole[BIAS].shape == (found,)]
    if not all(of_a_head) or not all(tensor.is_floating_point() for tensor in whole.values()):
        return whole, []  # for `load_into` to refuse
    if classes is None or weights.classes is None or len(weights.classes) != found:
        if wanted != found:
            left_out = f"its head of {found} classes is left out; the new one has {wanted}"
            return {name: own[name] for name in whole}, [f"{weights.path}: {left_out}."]
        note = f"names no classes; its head is kept, its {found} outputs taken for the {wanted} classes in their order"
        return whole, [] if classes is None else [f"{weights.path}: {note}."]
    if classes == weights.classes:
        return whole, []
    rows = {composed(name): row for row, name in enumerate(weights.classes.names)}
    pairs = [(new, rows[composed(name)]) for new, name in enumerate(classes.names) if composed(name) in rows]
    new, old = ([pair[side] for pair in pairs] for side in (0, 1))
    head = {name: own[name].clone() for name in whole}
    for name, rows_of_file in whole.items():
        head[name][new] = rows_of_file[old].to(head[name])
    return head, [f"{weights.path}: {_note(weights.classes, classes, set(new))}."]


def _note(old: ClassMap, new: ClassMap, kept: set[int]) -> str:
    fresh = [name for label, name in enumerate(new.names) if label not in kept]
    if not fresh and len(new) == len(old):
        return f"its head's {len(old)} rows are put in the order of the data's classes, by name"
    if not kept:
        return f"its head of {len(old)} classes is left out; none is a class of the data, the new one has {len(new)}"
    names = ", ".join(fresh[:_NAMES_SHOWN]) + (" ..." if len(fresh) > _NAMES_SHOWN else "")
    note = f"its head keeps {len(kept)} of {len(old)} rows, by the names of their classes"
    return f"{note}; {len(fresh)} new: {names}" if fresh else note
