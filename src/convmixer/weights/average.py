"""The mean of several networks' weights, as that of the last checkpoints of a run (Izmailov et al. 2018,
https://arxiv.org/abs/1803.05407, with the statistics of BatchNorm averaged too and not computed again)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from convmixer.errors import UserError
from convmixer.weights.read import WeightFile, read_weights

# What must be alike, as messages call it.
_ALIKE = ("shape", "activation", "classes", "preprocessing")


def average(paths: Sequence[Path], entry: str | None = None) -> WeightFile:
    """The mean of the weights at these paths, file by file; all but floats, as counters, are the last file's.

    `path` and `metadata` are the last file's, and so is the type of each number. Raises UserError for a file that
    cannot be read, and where two are of another network, other classes or another preprocessing.
    """
    first: WeightFile | None = None
    sums: dict[str, torch.Tensor] = {}
    for path in paths:
        weights = read_weights(path, entry)
        if first is None:
            # Its tensors are not kept: only two networks are in memory, however many are averaged.
            first = replace(weights, state={})
            sums = {name: tensor.double() for name, tensor in weights.state.items() if tensor.is_floating_point()}
            names = weights.state.keys()
            continue
        _check_alike(first, weights)
        if weights.state.keys() != names:
            raise UserError(f"{first.path} and {weights.path}: hold tensors of other names")
        for name, total in sums.items():
            total += weights.state[name]
    mean = {
        name: (sums[name] / len(paths)).to(tensor.dtype) if name in sums else tensor
        for name, tensor in weights.state.items()
    }
    return replace(weights, state=mean)


def _check_alike(one: WeightFile, other: WeightFile) -> None:
    for name in _ALIKE:
        before, now = getattr(one, name), getattr(other, name)
        if before == now:
            continue
        shown = "" if name == "classes" else f": {before} and {now}"
        raise UserError(f"{one.path} and {other.path}: differ in their {name}{shown}; they have no average")
