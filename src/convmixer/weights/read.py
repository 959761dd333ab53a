"""Weights of any layout, read by content and not by the file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from convmixer.arch import Activation, Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError
from convmixer.progress import note
from convmixer.weights import record
from convmixer.weights.layouts import COUNTER, Layout, to_ours
from convmixer.weights.mindspore_ckpt import looks_like_checkpoint, read_checkpoint
from convmixer.weights.published import Published, fetch, nearest, published
from convmixer.weights.record import Shape
from convmixer.weights.torch_file import read_torch_file

_ACCEPTED = "a checkpoint folder, .safetensors, a PyTorch state_dict (.pth, .pth.tar) or a MindSpore .ckpt is read"
# The averaged weights come first: with EMA, evaluation and export use them.
_FOLDER_FILES = ("best.safetensors", "ema.safetensors", "model.safetensors")
_HEAD_BYTES = 512
_SAFETENSORS_HEADER_MAX = 100_000_000  # the format's own bound
_OTHER_FILES = (
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"\x89PNG", "a PNG image"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\x08[\x01-\x20]\x12", "an ONNX model"),
    (rb"version https://git-lfs", "a Git LFS pointer and not the file itself"),
)


@dataclass(frozen=True)
class WeightFile:
    """Weights and what their file says of them.

    `state` has our names and the types stored; a name of the file that belongs to no part of a ConvMixer is kept, for
    `convmixer.weights.load` to refuse. `activation` is None where the file does not say, `classes` and `preprocessing`
    likewise. `source` is the layout found; `metadata` holds the plain values beside the weights (epoch, arch ...).
    """

    state: Mapping[str, torch.Tensor]
    shape: Shape
    activation: Activation | None
    classes: ClassMap | None
    preprocessing: Preprocessing | None
    source: Layout
    path: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture | None:
        """The whole architecture where the file says it, None where the activation is not known."""
        return self.shape.with_activation(self.activation) if self.activation else None


def read_weights(path: str | PathLike[str]) -> WeightFile:
    """The weights in a file, in a checkpoint folder (the averaged ones where it has them), or published by that name.

    Raises UserError in one line for what is missing, damaged, or no weights of a ConvMixer. Nothing in the file is
    executed, and nothing is unpacked to more than the file's size.
    """
    path = Path(path)
    item = published(path)
    if item is None:
        return _read(path)
    weights = _read(path if path.is_file() else fetch(item))
    # A file that somebody gave this name may speak for itself.
    return weights if weights.activation else _described(weights, item)


def _described(weights: WeightFile, item: Published) -> WeightFile:
    """Published weights with what is known of them."""
    if weights.shape != Shape.of(item.architecture):
        raise UserError(f"{weights.path}: its tensors are those of {weights.shape}, not of {item.name}.")
    activation = item.architecture.activation
    return replace(weights, activation=activation, classes=item.classes, preprocessing=item.preprocessing)


def _read(path: Path) -> WeightFile:
    if path.is_dir():
        path = _file_of_folder(path)
    state, metadata = _read_content(path)
    found = to_ours(state)
    if found is None:
        raise UserError(f"{path}: holds {len(state)} tensors, but not those of a ConvMixer.")
    source, names = found
    mapped = {ours: state[name] for name, ours in names.items()}
    _add_counters(mapped)
    shape = _shape(path, mapped)
    own = metadata.get(record.KEY) if source in ("ours", "timm") else None
    if own is None:
        return WeightFile(mapped, shape, None, None, None, source, path, metadata)
    try:
        said = record.decode(str(own), state)
    except ValueError as error:
        raise UserError(f"{path}: a damaged weight file: {error}.") from None
    if Shape.of(said.architecture) != shape:
        raise UserError(f"{path}: its record says {Shape.of(said.architecture)}, its tensors are those of {shape}.")
    return WeightFile(
        mapped, shape, said.architecture.activation, said.classes, said.preprocessing, source, path, said.extra
    )


def _file_of_folder(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    runs = sorted(child for child in folder.glob("*/best.safetensors"))
    if runs:
        note(f"{folder}: the newest of {len(runs)} run(s), {runs[-1]}")
        return runs[-1]
    steps = sorted(child.name for child in folder.glob("step_*") if child.is_dir())
    hint = f"; did you mean {folder / steps[-1]}?" if steps else f"; {_ACCEPTED}."
    raise UserError(f"{folder}: a folder without {' or '.join(reversed(_FOLDER_FILES))}{hint}")


def _read_content(path: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]:
    """Tensors under the file's own names, and the plain values beside them."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        near = nearest(path)
        raise UserError(f"{path}: no such file or folder{f'; did you mean {near}?' if near else '.'}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.", exit_code=RUN_FAILED) from None
    if head.startswith(b"PK\x03\x04"):
        return read_torch_file(path, zipped=True)
    if re.match(rb"\x80[\x02-\x05]", head):
        return read_torch_file(path, zipped=False)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER_MAX:
        return _read_safetensors(path)
    if looks_like_checkpoint(head):
        entries = read_checkpoint(path)
        arrays = {name: torch.from_numpy(v) for name, v in entries.items() if not isinstance(v, str)}
        return arrays, {name: v for name, v in entries.items() if isinstance(v, str)}
    raise UserError(f"{path}: {_kind(head, size)}, not weights; {_ACCEPTED}.")


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError):
        raise UserError(f"{path}: a truncated or damaged safetensors file; fetch or save it again.") from None


def _kind(head: bytes, size: int) -> str:
    if not size:
        return "an empty file"
    for pattern, name in _OTHER_FILES:
        if re.match(pattern, head):
            return name
    try:
        # The end of the head may cut a character in two.
        text = head.decode("utf-8") if size <= len(head) else head[:-3].decode("utf-8", errors="ignore")
    except UnicodeDecodeError:
        text = "\0"
    return "a text file" if all(c.isprintable() or c.isspace() for c in text) else "a file of unknown content"


def _add_counters(state: dict[str, torch.Tensor]) -> None:
    """Zero `num_batches_tracked` for a file that has none at all, as MindSpore's: nothing is computed from them."""
    if any(name.endswith(COUNTER) for name in state):
        return
    for name in [name for name in state if name.endswith(".running_mean")]:
        state[name.removesuffix("running_mean") + COUNTER] = torch.zeros((), dtype=torch.int64)


def _shape(path: Path, state: Mapping[str, torch.Tensor]) -> Shape:
    """Architecture told by the shapes of stem, first block and head."""
    blocks = {match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    sizes = {}
    for name, rank in (("stem.conv.weight", 4), ("blocks.0.depthwise.weight", 4), ("head.weight", 2)):
        tensor = state.get(name)
        if tensor is None:
            raise UserError(f"{path}: lacks {name}; it holds only a part of a ConvMixer.")
        if tensor.ndim != rank or 0 in tensor.shape or (rank == 4 and tensor.shape[2] != tensor.shape[3]):
            raise UserError(f"{path}: {name} has the shape {list(tensor.shape)}, which no ConvMixer has.")
        sizes[name.split(".")[0]] = tensor.shape
    stem, block, head = sizes["stem"], sizes["blocks"], sizes["head"]
    return Shape(
        dim=stem[0],
        depth=len(blocks),
        kernel_size=block[2],
        patch_size=stem[2],
        num_classes=head[0],
        in_chans=stem[1],
    )
