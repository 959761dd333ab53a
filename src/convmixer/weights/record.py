"""What a weight file says of itself beside its tensors: one JSON record in the metadata of a safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from convmixer.arch import ACTIVATIONS, Activation, Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing

KEY = "convmixer"
FORMAT = 1


@dataclass(frozen=True)
class Shape:
    """What the shapes of the parameters tell of an architecture: all of it but the activation."""

    dim: int
    depth: int
    kernel_size: int
    patch_size: int
    num_classes: int
    in_chans: int

    @classmethod
    def of(cls, arch: Architecture) -> Shape:
        return cls(**{item.name: getattr(arch, item.name) for item in fields(cls)})

    def with_activation(self, activation: Activation) -> Architecture:
        return Architecture(**asdict(self), activation=activation)

    def __str__(self) -> str:
        return f"convmixer_{self.dim}_{self.depth} (kernel {self.kernel_size}, patch {self.patch_size})"


@dataclass(frozen=True)
class Record:
    """Architecture, classes, preprocessing and any further plain values (`extra`) that travel with weights."""

    architecture: Architecture
    classes: ClassMap | None = None
    preprocessing: Preprocessing | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def _digest(values: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the record and over names, types, shapes and bytes of CPU tensors, as 64 hexadecimal digits.

    Neither safetensors nor torch notices a flipped bit; this does, wherever the file is moved to.
    """
    sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def encode(record: Record, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Metadata of a safetensors file that holds `state`."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "arch": asdict(record.architecture),
        "classes": list(record.classes.names) if record.classes else None,
        "preprocessing": record.preprocessing.to_dict() if record.preprocessing else None,
        "extra": dict(record.extra),
    }
    values["sha256"] = _digest(values, state)
    # A single key: safetensors writes several in an order of its own, which would make equal files differ.
    return {KEY: json.dumps(values)}


def decode(text: str, state: Mapping[str, torch.Tensor]) -> Record:
    """The record that `encode` wrote. Raises ValueError for one that is malformed or does not fit `state`."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("its record is malformed") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"its record is not of format {FORMAT}; a newer convmixer may have written it")
    if values.pop("sha256", None) != _digest(values, state):
        raise ValueError("its SHA-256 does not fit its content")
    try:
        arch = Architecture(**values["arch"])
        names, preprocessing = values["classes"], values["preprocessing"]
        record = Record(
            arch,
            ClassMap(tuple(names)) if names is not None else None,
            Preprocessing.from_dict(preprocessing) if preprocessing is not None else None,
            dict(values["extra"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError("its record is malformed") from None
    if arch.activation not in ACTIVATIONS or not all(isinstance(name, str) for name in names or ()):
        raise ValueError("its record is malformed")
    return record
