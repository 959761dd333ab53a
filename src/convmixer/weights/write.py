"""Weight files written whole or not at all: beside the target, flushed to the disk, then renamed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch

from convmixer.arch import Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError
from convmixer.metadata import KEY, ModelMetadata, encode_metadata
from convmixer.runs.durable import write_file
from convmixer.weights.layouts import Layout, from_native
from convmixer.weights.mindspore_ckpt import encode_checkpoint
from convmixer.weights.seal import seal_with


def write_weights(
    path: str | PathLike[str],
    state: Mapping[str, torch.Tensor],
    *,
    architecture: Architecture,
    classes: ClassMap | None = None,
    preprocessing: Preprocessing | None = None,
    extra: Mapping[str, Any] | None = None,
    layout: Literal["native", "timm"] = "native",
) -> None:
    """Weights under our names, or timm's, as safetensors, with all that is needed to use them and a SHA-256 of both.

    `extra`: plain values for JSON. Under our names the same arguments give the same bytes. Raises UserError (exit
    code 1) where the disk refuses; the file that stood there before is then untouched.
    """
    tensors = _renamed(_on_cpu(state), layout, architecture)
    record = ModelMetadata(architecture, classes, preprocessing, extra or {})
    # A single key: safetensors writes several in an order of its own, which would make equal files differ.
    metadata = {KEY: encode_metadata(record, seal_with(tensors))}
    if layout == "timm":
        metadata["format"] = "pt"  # transformers, which loads timm's files too, asks for it
    _replace(Path(path), safetensors.torch.save(tensors, metadata))


def write_layout(
    path: str | PathLike[str], state: Mapping[str, torch.Tensor], layout: Layout, *, architecture: Architecture
) -> None:
    """Weights (under our names) in the layout of another program, which has no place for classes or preprocessing.

    `authors`: torch.save of {'state_dict': ...}. `timm`: torch.save of the state dict. `mindspore`: a `.ckpt`, in
    which bfloat16 becomes float32. Raises UserError as `write_weights`, which is what `native` does.
    """
    if layout == "native":
        return write_weights(path, state, architecture=architecture)
    renamed = _renamed(_on_cpu(state), layout, architecture)
    if layout == "mindspore":
        floats = {name: t.float() if t.dtype is torch.bfloat16 else t for name, t in renamed.items()}
        return _replace(Path(path), encode_checkpoint({name: t.numpy() for name, t in floats.items()}))
    buffer = io.BytesIO()
    torch.save({"state_dict": renamed} if layout == "authors" else renamed, buffer)
    return _replace(Path(path), buffer.getvalue())


def _on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor alone in its memory, as safetensors wants it; no copy where it is so already."""
    tensors = {}
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        shared = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        tensors[name] = plain.clone() if shared else plain
    return tensors


def _renamed(tensors: Mapping[str, torch.Tensor], layout: Layout, arch: Architecture) -> dict[str, torch.Tensor]:
    return {foreign: tensors[name] for name, foreign in from_native(tensors, layout, arch.depth).items()}


def _replace(path: Path, content: bytes) -> None:
    try:
        write_file(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}.", exit_code=RUN_FAILED) from None
