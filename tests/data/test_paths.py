from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from convmixer.data.paths import Paths

NAMES = ["a/b.jpg", "", "ä/ö.png", os.fsdecode(b"\xff\xfe raw"), "x" * 5000]


def test_paths_come_back() -> None:
    paths = Paths.of(NAMES)
    assert len(paths) == 5
    assert list(paths) == NAMES
    assert paths[-1] == NAMES[-1]
    assert [paths[index] for index in (3, 0)] == [NAMES[3], NAMES[0]]
    with pytest.raises(IndexError):
        paths[5]
    assert list(pickle.loads(pickle.dumps(paths))) == NAMES
    assert list(Paths.of([Path("a") / "b"])) == ["a/b"]


def test_parts_are_joined_in_their_order() -> None:
    assert list(Paths.joined([Paths.of(NAMES[:2]), Paths.of(), Paths.of(NAMES[2:])])) == NAMES
    assert list(Paths.joined([])) == []
    assert Paths.joined([Paths.of(NAMES[:2]), Paths.of(NAMES[2:])]).encoded == Paths.of(NAMES).encoded


def test_bytes_are_those_of_the_names_with_a_zero_behind_each() -> None:
    assert Paths.of(["a", "ü"]).encoded == b"a\0\xc3\xbc\0"
