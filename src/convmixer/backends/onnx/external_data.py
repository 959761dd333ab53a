"""Tensors that an ONNX file keeps in other files: allowed beside it and below its folder, refused elsewhere."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convmixer.errors import UserError

# The key that every reference to another file has; without it there is none.
_MARK = b"location"


def external_bytes(path: Path) -> int:
    """Size of the files that an ONNX file keeps tensors in.

    Raises UserError where it refers to a file outside its folder, or to one that is not there: a runtime would read
    whatever file a model names, on the word of a stranger.
    """
    if not _contains(path, _MARK):
        return 0
    # Only now: importing it takes as long as a photo's whole inference.
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except DecodeError:
        raise UserError(f"{path}: a broken ONNX file") from None
    folder, found = path.parent.resolve(), set[Path]()
    for message in _messages(model):
        if not isinstance(message, onnx.TensorProto):
            continue
        for entry in message.external_data:
            if entry.key != "location":
                continue
            # resolve() follows links, so that a link in the folder leads nowhere else either.
            target = (path.parent / entry.value).resolve()
            if not target.is_relative_to(folder):
                raise UserError(f"{path}: keeps weights in {entry.value!r}, outside its own folder; this is refused")
            if not target.is_file():
                raise UserError(f"{path}: keeps weights in {entry.value!r} beside it, which is not there")
            found.add(target)
    return sum(target.stat().st_size for target in found)


def _contains(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(mark) >= 0


def _messages(message: Any) -> Iterator[Any]:
    """All messages within a protobuf message, however deep: tensors stand in graphs, attributes and functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            yield inner
            yield from _messages(inner)
