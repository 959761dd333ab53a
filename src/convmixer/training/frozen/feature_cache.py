"""Features kept on disk, by weights, images and preprocessing: training the head again then takes no pass of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from convmixer.data.folders import Files
from convmixer.data.limits import BadImage
from convmixer.data.source import Source, Subset, in_memory_images, is_in_memory
from convmixer.model import ConvMixer
from convmixer.runs.durable import write_file
from convmixer.training.frozen.features import Features
from convmixer.training.resolved_run import ResolvedRun
from convmixer.user_cache import user_cache

# Of all features together; a set that has more is not kept.
MAX_BYTES = 2 * 2**30


def features_folder() -> Path:
    """`convmixer/features` in the user's cache folder."""
    return user_cache("features")


def key_of(run: ResolvedRun, model: ConvMixer, source: Source, views: int) -> str:
    """A hash of all that the features depend on.

    The weights but those of the head, the images, how they are read, the precision and the kind of device, whose
    rounding differs.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            digest.update(f"{name} {tuple(tensor.shape)} ".encode() + tensor.cpu().contiguous().numpy().tobytes())
    words = {
        "arch": model.arch.name,
        "activation": model.arch.activation,
        "preprocessing": run.preprocessing.to_dict(),
        "views": views,
        "precision": run.precision.description,
        "device": run.device.type,
        "torch": torch.__version__,
    }
    digest.update(json.dumps(words, sort_keys=True).encode())
    for piece in _content(source):
        digest.update(piece)
    return digest.hexdigest()[:32]


def _content(source: Source) -> Iterator[bytes]:
    """What tells the images of a source from others: of files their paths, sizes and times; else what is read."""
    if is_in_memory(source):
        pixels = in_memory_images(source)
        assert pixels is not None
        yield repr(pixels.shape).encode()
        yield np.ascontiguousarray(pixels).tobytes()
    elif isinstance(source, Files) or (isinstance(source, Subset) and isinstance(source.source, Files)):
        for index in range(len(source)):
            yield from _of_file(source.name(index))
    else:
        for index in range(len(source)):
            try:
                content = source.read(index)
            except (OSError, BadImage):
                content = b"unreadable"
            yield f"\0{len(content)} ".encode()
            yield content if isinstance(content, bytes) else content.tobytes()


def _of_file(path: str) -> Iterator[bytes]:
    yield os.fsencode(os.path.abspath(path)) + b"\0"
    with contextlib.suppress(OSError):
        found = os.stat(path)
        yield f"{found.st_size} {found.st_mtime_ns}\0".encode()


def load_features(key: str) -> Features | None:
    """The features of that key; None where there are none, or their file is not whole."""
    path = _path(key)
    try:
        with safe_open(path, framework="np") as file:
            values, indices = file.get_tensor("values"), file.get_tensor("indices")
            record = file.metadata() or {}
        bad = [(int(index), str(why)) for index, why in json.loads(record["bad"])]
        is_whole = record["sha256"] == _digest(values, indices) and values.ndim == 3 and len(values) == len(indices)
        if not is_whole:
            return None
        os.utime(path)  # the one that was used last is dropped last
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return Features(values, indices, bad)


def save_features(key: str, features: Features) -> Path | None:
    """Keep features, and drop those that were used longest ago; None where they are too large or the disk refuses."""
    if features.values.nbytes > MAX_BYTES:
        return None
    record = {"bad": json.dumps(features.bad), "sha256": _digest(features.values, features.indices)}
    tensors = {"values": torch.from_numpy(features.values), "indices": torch.from_numpy(features.indices)}
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save(tensors, record))
        _drop_oldest(path)
    except OSError:
        return None
    return path


def _drop_oldest(kept: Path) -> None:
    files = sorted(
        (path for path in kept.parent.glob("*.safetensors") if path != kept),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    total = kept.stat().st_size
    for path in files:
        total += path.stat().st_size
        if total > MAX_BYTES:
            path.unlink()


def _digest(values: np.ndarray, indices: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes() + indices.tobytes()).hexdigest()


def _path(key: str) -> Path:
    return features_folder() / f"{key}.safetensors"
