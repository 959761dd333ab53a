"""The seal of a weight file, which notices a flipped bit; neither safetensors nor torch does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch


def seal_with(state: Mapping[str, torch.Tensor]) -> Any:
    """A `metadata.Seal` over the record and over names, types, shapes and bytes of the CPU tensors of `state`."""

    def seal(values: Mapping[str, Any]) -> str:
        sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
        for name in sorted(state):
            tensor = state[name].contiguous()
            sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()

    return seal
