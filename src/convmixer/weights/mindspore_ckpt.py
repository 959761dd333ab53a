"""MindSpore's checkpoint format, read and written without MindSpore and without torch.

A `.ckpt` is a protobuf message (https://protobuf.dev/programming-guides/encoding/):

    Checkpoint { repeated Value value = 1 }
    Value { string tag = 1; TensorProto tensor = 2 }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

MindSpore saves a tensor above 512 MB as several values of one tag, each with the dims of the whole, and may end the
file with `crc_num` and the CRC-32 of what stands before it (mindspore/train/serialization.py of 2.10.0).
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from convmixer import protobuf
from convmixer.errors import UserError
from convmixer.protobuf import MalformedMessage

_DTYPES = {
    f"{name}{bits}": np.dtype(f"<{letter}{bits // 8}")
    for name, letter, widths in (
        ("Float", "f", (16, 32, 64)),
        ("Int", "i", (8, 16, 32, 64)),
        ("UInt", "u", (8, 16, 32, 64)),
    )
    for bits in widths
} | {"Bool": np.dtype(bool)}
_TYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_CRC_MARK = b"crc_num"
_CRC_BYTES = 10
_DIMS_MAX = 64  # NumPy's
_FIELDS_MAX = 256  # of one entry; MindSpore writes its tag and its tensor


class _TooManyError(Exception):
    """A checkpoint of something else, by the number of its entries."""


def _fields(data: memoryview, max_fields: int = _FIELDS_MAX) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message: an int for varints, else a view of the bytes, never a copy."""
    for count, field in enumerate(protobuf.fields(data, 0, len(data))):
        if count == max_fields:
            raise MalformedMessage("an entry has more parts than any that MindSpore writes")
        yield field.number, field.value if field.wire_type == protobuf.VARINT else data[field.start : field.end]


def _dims(value: int | memoryview) -> Iterator[int]:
    """Dimensions of one `dims` field: a single number, or packed into bytes."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = protobuf.varint(value, at, len(value))
        yield number


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise MalformedMessage("an entry is a number where bytes belong")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return str(_view(value), "utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage("a name is not text") from None


class _Entry:
    """One tensor, gathered from the values of its tag."""

    def __init__(self) -> None:
        self.dims: list[int] = []
        self.type = ""
        self.parts: list[memoryview] = []

    def add(self, tensor: memoryview) -> None:
        """A further TensorProto; each states the dims of the whole."""
        self.dims = []
        for number, value in _fields(tensor):
            if number == 1:
                for size in _dims(value):
                    self.dims.append(size)
                    if len(self.dims) > _DIMS_MAX:
                        raise MalformedMessage("an entry has more dimensions than fit an array")
            elif number == 2:
                self.type = _text(value)
            elif number == 3:
                self.parts.append(_view(value))

    def array(self, tag: str) -> np.ndarray | str:
        content = bytearray().join(self.parts)
        if self.type == "str":
            return content.decode("utf-32-le", errors="replace").rstrip("\0")
        wide = self.type == "BFloat16"
        dtype = np.dtype("<u2") if wide else _DTYPES.get(self.type)
        if dtype is None:
            raise MalformedMessage(f"{tag!r} has the type {self.type!r}, which is not known here")
        # MindSpore writes the shape of a scalar as () or as (0,).
        dims = [] if self.dims == [0] and content else self.dims
        misfit = MalformedMessage(f"{tag!r} has {len(content)} bytes, which do not fit its shape {dims}")
        if math.prod(dims) * dtype.itemsize != len(content):
            raise misfit
        try:
            array = np.frombuffer(content, dtype).reshape(dims)
        except ValueError:  # a size of 0 beside one beyond any array, or more dimensions than NumPy has
            raise misfit from None
        if not wide:
            return array
        # NumPy knows no bfloat16: its bits are the upper half of a float32's. The shift of a scalar is no array.
        return np.asarray(array.astype("<u4") << 16).view("<f4")


def _decode(data: memoryview, entries_max: int | None) -> dict[str, np.ndarray | str]:
    mark = len(data) - _CRC_BYTES - len(_CRC_MARK)
    if mark >= 0 and data[mark : mark + len(_CRC_MARK)] == _CRC_MARK:
        if zlib.crc32(data[:mark]) != int.from_bytes(data[-_CRC_BYTES:], "big"):
            raise MalformedMessage("its CRC does not fit its content")
        data = data[:mark]
    entries: dict[str, _Entry] = {}
    for count, (number, value) in enumerate(_fields(data, sys.maxsize)):
        if number != 1:
            raise MalformedMessage("it has entries of an unknown type")
        if count == entries_max:
            raise _TooManyError(f"holds more than {entries_max:,} tensors, which no ConvMixer has")
        inner = list(_fields(_view(value)))
        tags = [_text(view) for key, view in inner if key == 1]
        if len(tags) != 1:
            raise MalformedMessage("an entry has no name")
        for key, view in inner:
            if key == 2:
                entries.setdefault(tags[0], _Entry()).add(_view(view))
    return {tag: entry.array(tag) for tag, entry in entries.items()}


def looks_like_checkpoint(head: bytes) -> bool:
    """Whether the first bytes of a file are a Value with a printable tag; 512 bytes are enough."""
    view = memoryview(head)
    try:
        if head[:1] != b"\x0a":
            return False
        _, at = protobuf.varint(view, 1, len(view))
        if head[at : at + 1] != b"\x0a":
            return False
        length, at = protobuf.varint(view, at + 1, len(view))
        return 0 < length <= len(head) - at and str(view[at : at + length], "utf-8").isprintable()
    except (MalformedMessage, UnicodeDecodeError):
        return False


def read_checkpoint(path: str | PathLike[str], entries_max: int | None = None) -> dict[str, np.ndarray | str]:
    """All entries of a `.ckpt` by name: arrays in the shape and type stored (BFloat16 as float32), text as str.

    Raises UserError for a file that is truncated or malformed, or has more than `entries_max` entries. Nothing is
    allocated on the word of a length field.
    """
    try:
        return _decode(memoryview(Path(path).read_bytes()), entries_max)
    except _TooManyError as error:
        raise UserError(f"{path}: {error}.") from None
    except MalformedMessage as error:
        raise UserError(f"{path}: a damaged MindSpore checkpoint: {error}; fetch or save it again.") from None


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | protobuf.BYTES) + _number(len(content)) + content


def encode_checkpoint(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Bytes of a `.ckpt` with these arrays, as MindSpore writes them (no CRC: versions before 2 do not read it)."""
    values = []
    for tag, array in arrays.items():
        type_name = _TYPE_NAMES[array.dtype.newbyteorder("<")]
        dims = b"".join(_number(1 << 3 | protobuf.VARINT) + _number(size) for size in array.shape)
        tensor = (
            dims + _field(2, type_name.encode()) + _field(3, array.astype(_DTYPES[type_name], copy=False).tobytes())
        )
        values.append(_field(1, _field(1, tag.encode()) + _field(2, tensor)))
    return b"".join(values)
