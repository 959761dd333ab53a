"""Headers of tar files: those that Python's tarfile writes, and those that nobody should."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.data.shards.tars import write_tar

from convmixer.data.shards.tar import Member, members
from convmixer.errors import UserError

LONG = (
    "folder/" * 30 + "name.jpg"
)  # more than the 100 bytes of the first tar files, and than ustar's 255 with its prefix
NAMES = ["a.jpg", "folder/b.jpg", "ä/ß.jpg", "x" * 99, "d" * 90 + "/" + "n" * 90]


def listed(content: bytes) -> list[Member]:
    return list(members(lambda at, count: content[at : at + count], len(content), "x.tar"))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_python_writes(tmp_path: Path, form: int) -> None:
    names = NAMES if form == tarfile.USTAR_FORMAT else [*NAMES, LONG, LONG * 3]
    files = [(name, os.urandom(size)) for name, size in zip(names, (0, 1, 511, 512, 513, 1024, 7), strict=False)]
    content = write_tar(tmp_path / "x.tar", files, form).read_bytes()
    found = listed(content)
    assert [member.name for member in found] == names
    assert [content[member.offset : member.offset + member.size] for member in found] == [each for _, each in files]
    assert all(member.is_file for member in found)


def test_what_gnu_tar_writes(tmp_path: Path) -> None:
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub" / ("n" * 200 + ".jpg")).write_bytes(b"image")
    (tmp_path / "data/link.jpg").symlink_to("sub")
    subprocess.run(["tar", "-cf", "x.tar", "data"], cwd=tmp_path, check=True)
    content = (tmp_path / "x.tar").read_bytes()
    found = {member.name: member for member in listed(content)}
    file = found.pop(f"data/sub/{'n' * 200}.jpg")
    assert content[file.offset : file.offset + file.size] == b"image"
    assert {name: member.is_file for name, member in found.items()} == {"data/link.jpg": False}


def test_a_size_in_binary() -> None:
    """GNU's form for 8 GiB and more, here of a small one."""
    info = tarfile.TarInfo("a.jpg")
    info.size = 3
    header = bytearray(info.tobuf())
    header[124:136] = b"\x80" + (3).to_bytes(11, "big")
    assert listed(summed(header) + b"abc".ljust(512, b"\0") + bytes(1024)) == [Member("a.jpg", 512, 3, True)]


def summed(header: bytearray) -> bytes:
    """The header with the sum that it should have."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("kind", "target"), [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "a.jpg"), (tarfile.CHRTYPE, "")]
)
def test_links_and_devices_are_no_files(kind: bytes, target: str) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, target
    assert [member.is_file for member in listed(info.tobuf() + bytes(1024))] == [False]


def test_a_sparse_file_is_none(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 20)
    for form in ("gnu", "posix"):
        command = ["tar", "--sparse", f"--format={form}", "-cf", f"{form}.tar", "a.jpg"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert [member.is_file for member in listed((tmp_path / f"{form}.tar").read_bytes())] == [False]


@pytest.mark.parametrize("cut", [1, 511, 513, 1024, 1536, 2000, -1, -10240 + 3072])
def test_a_tar_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    content = write_tar(tmp_path / "x.tar", [("a.jpg", bytes(600)), ("b.jpg", bytes(10))]).read_bytes()
    whole = 512 + 1024 + 512 + 512  # what comes before the end marker
    cut = whole - cut if cut > 0 else max(whole + cut, 100)
    with pytest.raises(UserError, match=r"x\.tar: is cut short") as error:
        listed(content[:cut])
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (slice(124, 136), b"\xff" * 12, "a size at byte 0 is no number"),  # -1, CVE-2025-8194
        (slice(124, 136), b"-0000000001\0", "a size at byte 0 is no number"),
        (slice(124, 136), b"\x80" + b"\xff" * 11, "is cut short"),
        (slice(124, 136), b"77777777777\0", "is cut short"),
        (slice(156, 157), b"L", "a name at byte 512 has 100000 bytes"),
        (slice(156, 157), b"x", "a record of its headers makes no sense"),
    ],
)
def test_hostile_headers(field: slice, value: bytes, message: str) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 100_000
    header = bytearray(info.tobuf())
    header[field] = value
    with pytest.raises(UserError, match=message):
        listed(summed(header) + b"7" * 100_352 + bytes(1024))


@pytest.mark.parametrize("record", [b"0 path=x\n", b"999 path=x\n", b"-1 path=x\n", b"3 \n", b"12 pathx123\n"])
def test_hostile_pax_records(record: bytes) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    with pytest.raises(UserError, match="a record of its headers makes no sense"):
        listed(info.tobuf() + record.ljust(512, b"\0") + bytes(1024))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b" + bytes(600), "is a gzip file; shards are tar files without compression"),
        (b"PK\x03\x04" + bytes(600), "is a zip file"),
        (os.urandom(2048), "is no tar file"),
        (b"", "is cut short: 0 bytes"),
        (bytes(100), "is cut short: 100 bytes"),
    ],
)
def test_what_is_no_tar_file(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        listed(content)


def test_a_damaged_header_in_the_middle(tmp_path: Path) -> None:
    content = bytearray(write_tar(tmp_path / "x.tar", [("a.jpg", bytes(10)), ("b.jpg", bytes(10))]).read_bytes())
    content[1024] ^= 1
    with pytest.raises(UserError, match="is damaged: there is no header at byte 1024"):
        listed(bytes(content))


def test_random_damage_ends_in_an_error_or_a_list(tmp_path: Path) -> None:
    """No damage makes it go on for ever, or read what is not there."""
    file = io.BytesIO(write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), (LONG, b"2")], tarfile.PAX_FORMAT).read_bytes())
    whole = file.getvalue()
    for seed in range(300):
        damaged = bytearray(whole)
        damaged[seed * 31 % 4096] = seed % 256
        try:
            found = listed(bytes(damaged))
        except UserError:
            continue
        assert all(member.offset + member.size <= len(damaged) for member in found if member.is_file)
