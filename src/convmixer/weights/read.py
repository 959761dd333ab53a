"""Weights of any layout, read by content and not by the file's name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from convmixer.arch import Activation, Architecture, Shape
from convmixer.data.classes import ClassMap
from convmixer.data.formats.signatures import detect_format
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError
from convmixer.metadata import KEY, decode_metadata
from convmixer.weights.entries import TENSORS_MAX, choose
from convmixer.weights.folder import INDEX, file_of_folder, read_shards
from convmixer.weights.hub_config import read_hub_config
from convmixer.weights.layouts import COUNTER, Layout
from convmixer.weights.mindspore_ckpt import looks_like_checkpoint, read_checkpoint
from convmixer.weights.published import Published, fetch, nearest, published
from convmixer.weights.seal import seal_with
from convmixer.weights.structure import shape_of
from convmixer.weights.torch_file import read_torch_file

logger = logging.getLogger(__name__)

_ACCEPTED = "a checkpoint folder, .safetensors, a PyTorch state_dict (.pth, .pth.tar) or a MindSpore .ckpt is read"
_HEAD_BYTES = 512
_SAFETENSORS_HEADER_MAX = 100_000_000  # the format's own bound
_HEADER_MAX = 8_000_000  # that of 20,000 tensors and as many names of classes has half of it
_OTHER_FILES = (
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

    @property
    def headless(self) -> bool:
        """Whether the file has no head: a backbone, which answers in no classes."""
        return self.shape.num_classes == 0


def read_weights(path: str | PathLike[str], entry: str | None = None) -> WeightFile:
    """The weights in a file, in a checkpoint folder (the averaged ones where it has them), or published by that name.

    `entry`: which of the networks in a file that holds several, by the name of its entry or of what wraps it.
    Raises UserError in one line for what is missing, damaged, or no weights of a ConvMixer. Nothing in the file is
    executed, and nothing is unpacked to more than the file's size.
    """
    path = Path(path)
    item = published(path)
    if item is None:
        return _read(path, entry)
    weights = _read(path if path.is_file() else fetch(item), entry)
    # A file that somebody gave this name may speak for itself.
    return weights if weights.activation else _described(weights, item)


def _described(weights: WeightFile, item: Published) -> WeightFile:
    """Published weights with what is known of them."""
    if weights.shape != Shape.of(item.architecture):
        raise UserError(f"{weights.path}: its tensors are those of {weights.shape}, not of {item.name}.")
    activation = item.architecture.activation
    return replace(weights, activation=activation, classes=item.classes, preprocessing=item.preprocessing)


def _read(path: Path, entry: str | None) -> WeightFile:
    if path.is_dir():
        path = file_of_folder(path, _ACCEPTED)
    content, metadata = _read_content(path)
    choice = choose(path, content, entry)
    for line in choice.notes:
        logger.info(line)
    if choice.location:
        metadata = {**metadata, "entry": choice.location}
    state, source = choice.state, choice.layout
    _add_counters(state)
    shape = shape_of(path, state)
    own = metadata.get(KEY) if source in ("native", "timm") else None
    if own is None:
        return _described_by_config(WeightFile(state, shape, None, None, None, source, path, metadata))
    try:
        record = decode_metadata(str(own), seal_with(content))
    except ValueError as error:
        raise UserError(f"{path}: a damaged weight file: {error}.") from None
    if Shape.of(record.architecture) != shape:
        raise UserError(f"{path}: its record says {Shape.of(record.architecture)}, its tensors are those of {shape}.")
    return WeightFile(
        state, shape, record.architecture.activation, record.classes, record.preprocessing, source, path, record.extra
    )


def _described_by_config(weights: WeightFile) -> WeightFile:
    """The weights with what a config.json of the hub beside them says."""
    config = read_hub_config(weights.path, weights.shape)
    for line in config.notes:
        logger.info(line)
    return replace(weights, activation=config.activation, classes=config.classes, preprocessing=config.preprocessing)


def _read_content(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the file holds under its own names (tensors, or mappings of them), and the plain values among it."""
    if path.name.endswith(INDEX):
        return read_shards(path, lambda shard: _read_content(shard)[0]), {}
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
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header <= _SAFETENSORS_HEADER_MAX:
        return _read_safetensors(path, header)
    if looks_like_checkpoint(head):
        entries = read_checkpoint(path, TENSORS_MAX)
        arrays = {name: torch.from_numpy(v) for name, v in entries.items() if not isinstance(v, str)}
        return arrays, {name: v for name, v in entries.items() if isinstance(v, str)}
    raise UserError(f"{path}: {_describe(head, size)}, not weights; {_ACCEPTED}.")


def _read_safetensors(path: Path, header: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if header > _HEADER_MAX:
        raise UserError(f"{path}: its header has {header} bytes, far more than a ConvMixer's tensors need.")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > TENSORS_MAX:
                raise UserError(f"{path}: holds more than {TENSORS_MAX:,} tensors, which no ConvMixer has.")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, ValueError, OSError):
        raise UserError(f"{path}: a truncated or damaged safetensors file; fetch or save it again.") from None


def _describe(head: bytes, size: int) -> str:
    if not size:
        return "an empty file"
    image, _ = detect_format(head)
    if image:
        return f"a {image} image"
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
