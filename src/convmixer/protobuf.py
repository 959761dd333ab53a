"""Protobuf's wire format, read field by field where it lies, without a schema and without protobuf.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class MalformedMessage(ValueError):
    """Bytes that are no message; says why."""


class Field(NamedTuple):
    """A field of a message: its number, its kind, where its bytes start and end, and the value of a VARINT (else 0)."""

    number: int
    kind: int
    start: int
    end: int
    value: int


def fields(data: memoryview | mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`. Raises MalformedMessage where it comes to no field."""
    while start < end:
        key, start = varint(data, start, end)
        number, kind, value, length = key >> 3, key & 7, 0, 0
        if kind == VARINT:
            value, start = varint(data, start, end)
        elif kind == BYTES:
            length, start = varint(data, start, end)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise MalformedMessage("it has entries of an unknown kind")
        if length > end - start:
            raise MalformedMessage("it ends in the middle of an entry")
        yield Field(number, kind, start, start + length, value)
        start += length


def varint(data: memoryview | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The unsigned 64-bit number at `at`, and the position behind it. Raises MalformedMessage where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise MalformedMessage("it ends in the middle of an entry")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise MalformedMessage("it has a number of too many bytes")
