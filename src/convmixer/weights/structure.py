"""The architecture that the shapes of a network's tensors give, and whether they are those of a ConvMixer at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from convmixer.arch import Shape
from convmixer.errors import UserError

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_NATIVE = re.compile(r"(?:stem\.(?:conv|norm)|blocks\.\d+\.(?:depth|point)wise(?:_norm)?|head)\.")
_SHOWN = 4
# Many blocks are seen to have their tensors before a network of so many is built; of few, all that lack are listed.
_BLOCKS_FEW, _PARTS = 100, 4


def shape_of(path: Path, state: Mapping[str, torch.Tensor]) -> Shape:
    """Architecture given by the shapes of stem, first block and head; `num_classes` is 0 where there is no head.

    Raises UserError for a part of a ConvMixer, and for a network that is none though its blocks have such names.
    """
    foreign = [name for name in state if not _NATIVE.match(name)]
    blocks = {match[1] for name in state if (match := _BLOCK.match(name)) and _NATIVE.match(name)}
    sizes = {}
    for name, rank in (("stem.conv.weight", 4), ("blocks.0.depthwise.weight", 4), ("head.weight", 2)):
        tensor = state.get(name)
        if tensor is None and name == "head.weight" and "head.bias" not in state:
            continue
        if tensor is None:
            if foreign:
                raise _no_convmixer(path, f"it lacks {name} and has {_shown(foreign)}")
            raise UserError(f"{path}: lacks {name}; it holds only a part of a ConvMixer.")
        if tensor.ndim != rank or 0 in tensor.shape or (rank == 4 and tensor.shape[2] != tensor.shape[3]):
            raise UserError(f"{path}: {name} has the shape {list(tensor.shape)}, which no ConvMixer has.")
        sizes[name.split(".")[0]] = tensor.shape
    _check_blocks(path, state, foreign, len(blocks))
    stem, block = sizes["stem"], sizes["blocks"]
    return Shape(
        dim=stem[0],
        depth=len(blocks),
        kernel_size=block[2],
        patch_size=stem[2],
        num_classes=sizes["head"][0] if "head" in sizes else 0,
        in_chans=stem[1],
    )


def _check_blocks(path: Path, state: Mapping[str, torch.Tensor], foreign: list[str], depth: int) -> None:
    """Refuse blocks whose convolutions are others, or that all have more than a ConvMixer's."""
    for name, tensor in state.items():
        shape = list(tensor.shape)
        if name.endswith(".depthwise.weight") and (tensor.ndim != 4 or shape[1] != 1):
            raise _no_convmixer(path, f"{name} {shape} is no depthwise convolution")
        if name.endswith(".pointwise.weight") and (tensor.ndim != 4 or shape[0] != shape[1] or shape[2:] != [1, 1]):
            raise _no_convmixer(path, f"{name} {shape} is no pointwise convolution that keeps the channels")
    repeated = Counter(re.sub(r"\d+", "#", name, count=1) for name in foreign)
    if any(count >= depth > 1 for count in repeated.values()):
        raise _no_convmixer(path, f"its blocks also have {_shown(foreign)}")
    if depth > _BLOCKS_FEW and depth * _PARTS > len(state):
        raise UserError(f"{path}: its {depth} blocks lack their tensors; it holds only a part of a ConvMixer.")


def _no_convmixer(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: another network than a ConvMixer: {reason}.")


def _shown(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
