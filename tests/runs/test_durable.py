"""Files of which a crash or a full disk leaves nothing half-written; with a real limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import file_size_limit

from convmixer.runs.durable import AppendedFile, remove_leftovers, write_file


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_file(path, b"old")
    with file_size_limit(100), pytest.raises(OSError, match="File too large"):
        write_file(path, bytes(200))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_file(path, bytes(200))
    assert path.read_bytes() == bytes(200)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (".best.safetensors.123.tmp", "best.safetensors", ".hidden", "a.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.tmp", "best.safetensors"]


def test_a_piece_that_does_not_fit_leaves_no_part(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "log")
    file.append(b"x" * 90)
    with file_size_limit(100), pytest.raises(OSError, match="File too large"):
        file.append(b"y" * 20)
    assert file.size == 90
    assert (tmp_path / "log").read_bytes() == b"x" * 90
    file.append(b"z" * 20)
    assert (tmp_path / "log").read_bytes() == b"x" * 90 + b"z" * 20


def test_what_a_refused_piece_left_is_cut_off_by_the_next(tmp_path: Path) -> None:
    """As on a network's disk, which refuses only when the file is closed."""
    file = AppendedFile(tmp_path / "log")
    file.append(b"whole\n")
    with (tmp_path / "log").open("ab") as other:
        other.write(b"a part")
    file.append(b"next\n")
    assert (tmp_path / "log").read_bytes() == b"whole\nnext\n"
    assert file.size == 11


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\n")
    file = AppendedFile(tmp_path / "log")
    file.append(b"second\n")
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\n"
