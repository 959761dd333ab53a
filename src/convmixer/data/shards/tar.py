"""The members of a tar file (POSIX.1-2001 and GNU), found by its headers alone. No member is ever written to a disk.

Python's tarfile takes sizes as they stand: a negative one made it read the same header for ever (CVE-2025-8194), and a
long name is read whole, however long it says to be. Here every number has a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from convmixer.errors import RUN_FAILED, UserError

BLOCK = 512
_MAX_LONG_NAME = 1 << 16
_MAX_PAX = 1 << 20

_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_FOLDER = b"5"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL = b"L", b"K", b"x", b"g"
_BEGINS_OF_ARCHIVES = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd", b"PK": "zip"}

# (offset, length) -> so many bytes, fewer where the file ends.
ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Member:
    """`offset` and `size`: of its content, in bytes. `is_file` False: a link, a device or the like; folders are left
    out."""

    name: str
    offset: int
    size: int
    is_file: bool


def members(read: ReadAt, size: int, shard: str) -> Iterator[Member]:
    """The members of a tar file of `size` bytes in their order. `shard`: its name in messages.

    Raises UserError (exit 1) for what is no tar file, and for one that ends before its end marker.
    """
    at, name, pax = 0, "", dict[str, str]()
    while True:
        header = read(at, BLOCK)
        if len(header) < BLOCK:
            raise _cut(shard, size)
        if not any(header):
            return
        _check(header, at, shard)
        kind, count = header[156:157], _number(header[124:136], shard, at)
        count = int(pax["size"]) if pax.get("size", "").isdecimal() else count
        content, blocks = at + BLOCK, 0 if kind in _WITHOUT_DATA else -(-count // BLOCK)
        at = content + blocks * BLOCK
        if at > size:
            raise _cut(shard, size)
        if kind == _LONG_NAME:
            name = _text(_bounded(read, content, count, _MAX_LONG_NAME, shard).partition(b"\0")[0])
        elif kind == _PAX:
            pax = _pax_records(_bounded(read, content, count, _MAX_PAX, shard), shard)
        elif kind not in (_LONG_LINK, _PAX_FOR_ALL):
            full = pax.get("path") or name or _name_in(header)
            is_sparse = any(key.startswith("GNU.sparse") for key in pax)
            name, pax = "", {}
            if kind != _FOLDER and not full.endswith("/"):
                yield Member(full, content, count, kind in _FILES and not is_sparse)


def _check(header: bytes, at: int, shard: str) -> None:
    """The header's own sum: of its bytes with blanks in the place of the sum."""
    total = sum(header) - sum(header[148:156]) + 8 * 32
    text = header[148:156].strip(b" \0")
    if text.isdigit() and not text.strip(b"01234567") and int(text, 8) == total:
        return
    archive = next((name for begin, name in _BEGINS_OF_ARCHIVES.items() if header.startswith(begin)), None)
    if at == 0 and archive is not None:
        raise UserError(f"{shard}: is a {archive} file; shards are tar files without compression", exit_code=RUN_FAILED)
    what = "is no tar file" if at == 0 else f"is damaged: there is no header at byte {at}"
    raise UserError(f"{shard}: {what}", exit_code=RUN_FAILED)


def _number(field: bytes, shard: str, at: int) -> int:
    """Octal digits, or GNU's bytes behind a first one of 0x80; negative ones are refused."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not text.strip(b"01234567"):
        return int(text or b"0", 8)
    raise UserError(f"{shard}: is damaged: a size at byte {at} is no number", exit_code=RUN_FAILED)


def _bounded(read: ReadAt, offset: int, count: int, limit: int, shard: str) -> bytes:
    if count > limit:
        raise UserError(f"{shard}: a name at byte {offset} has {count} bytes; it is refused", exit_code=RUN_FAILED)
    return read(offset, count)


def _pax_records(content: bytes, shard: str) -> dict[str, str]:
    """Records as `27 path=train/000000001.jpg` and a newline, each with its own length in front."""
    found, at = dict[str, str](), 0
    while at < len(content):
        digits, _, _ = content[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, sign, value = content[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if length <= len(digits) + 1 or at + length > len(content) or not sign:
            if not content[at:].strip(b"\0"):
                break
            raise UserError(f"{shard}: is damaged: a record of its headers makes no sense", exit_code=RUN_FAILED)
        found[_text(key)] = _text(value)
        at += length
    return found


def _name_in(header: bytes) -> str:
    name = _text(header[:100].partition(b"\0")[0])
    prefix = _text(header[345:500].partition(b"\0")[0]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _cut(shard: str, size: int) -> UserError:
    return UserError(
        f"{shard}: is cut short: {size} bytes, without a tar file's end; fetch it again", exit_code=RUN_FAILED
    )
