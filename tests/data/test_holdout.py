"""Evaluation images that are held out: by class, by seed, copies together, and the same again from the record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from convmixer.data.folders import Files, open_folder
from convmixer.data.holdout import RECORD, held_out_part, hold_out, read_record, record_beside
from convmixer.data.sources.digits import open_digits
from convmixer.errors import UserError

COUNTS = {"a": 10, "b": 25, "c": 3, "d": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of the same size, so that only their content tells them apart."""
    for name, count in COUNTS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "data" / name / f"{number}.jpg").write_bytes(f"{name}{number:04d}".encode() * 4000)
    return tmp_path / "data"


def opened(folder: Path) -> Files:
    return open_folder(folder, "--data_url")


def held_names(folder: Path, seed: int = 0, fraction: float = 0.2) -> set[str]:
    held = hold_out(opened(folder), str(folder), fraction, seed)
    return {held.names[index] for index in held.val.indices}


def test_each_class_gives_its_part(folder: Path) -> None:
    held = hold_out(opened(folder), str(folder), 0.2, 0)
    assert np.bincount(held.val.labels).tolist() == [2, 5, 1, 1]
    assert np.bincount(held.train.labels).tolist() == [8, 20, 2, 1]
    both = np.sort(np.concatenate([held.val.indices, held.train.indices]))
    assert both.tolist() == list(range(40))


def test_the_seed_and_the_names_decide_and_the_place_does_not(folder: Path, tmp_path: Path) -> None:
    first = held_names(folder)
    assert first == held_names(folder)
    assert first != held_names(folder, seed=1)
    shutil.move(folder, tmp_path / "elsewhere")
    assert first == held_names(tmp_path / "elsewhere")


def test_copies_stay_together(folder: Path) -> None:
    for number in range(10):
        for copy in range(3):
            shutil.copy(folder / f"a/{number}.jpg", folder / f"a/copy {copy} of {number}.jpg")
    for seed in range(20):
        names = held_names(folder, seed)
        for number in range(10):
            group = {f"a/{number}.jpg", *(f"a/copy {copy} of {number}.jpg" for copy in range(3))}
            assert group <= names or not group & names
        assert sum(name.startswith("a/") for name in names) == 8


def test_an_image_under_two_labels_is_for_training(folder: Path) -> None:
    shutil.copy(folder / "a/1.jpg", folder / "b/same.jpg")
    assert all(not {"a/1.jpg", "b/same.jpg"} & held_names(folder, seed) for seed in range(20))


def test_what_cannot_be_read_is_like_nothing_else(folder: Path) -> None:
    for name in ("x", "y"):
        os.symlink(folder / "nowhere", folder / f"a/{name}.jpg")
    assert len(held_names(folder)) == 9


def test_a_set_without_files() -> None:
    digits = open_digits(train=True)
    held = hold_out(digits, None, 0.2, 0)
    assert len(held.val) == pytest.approx(0.2 * len(digits), abs=10)
    parts = [{np.asarray(part.read(i)).tobytes() for i in range(len(part))} for part in (held.val, held.train)]
    assert not parts[0] & parts[1]


def test_a_part_that_would_be_empty(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(name.encode())
    with pytest.raises(UserError, match="leaves no evaluation images; each class needs two"):
        hold_out(opened(tmp_path), str(tmp_path), 0.2, 0)


class TestRecord:
    """`split.csv` and what weights say of the split."""

    def part(self, folder: Path, weights: Path | None, facts: Mapping[str, object]) -> tuple[list[str], list[str]]:
        said: list[str] = []
        source = held_out_part(opened(folder), str(folder), weights, facts, said.append)
        return [os.path.relpath(source.name(index), folder) for index in range(len(source))], said

    def test_the_record_holds_for_what_is_in_it(self, folder: Path, tmp_path: Path) -> None:
        held = hold_out(opened(folder), str(folder), 0.2, 0)
        (tmp_path / RECORD).write_bytes(held.csv())
        (folder / "a/new.jpg").write_bytes(b"new")
        record = read_record(tmp_path / RECORD)
        again = hold_out(opened(folder), str(folder), 0.5, 7, record)
        assert {again.names[i] for i in again.val.indices} == {held.names[i] for i in held.val.indices}
        names, said = self.part(folder, tmp_path / "best.safetensors", {})
        assert set(names) == {held.names[i] for i in held.val.indices}
        assert "1 images are not in it and are left out" in said[0]

    def test_without_the_record_what_the_weights_say(self, folder: Path, tmp_path: Path) -> None:
        held = hold_out(opened(folder), str(folder), 0.3, 5)
        facts = {"held_out": held.facts()}
        names, _ = self.part(folder, tmp_path / "best.safetensors", facts)
        assert set(names) == {held.names[i] for i in held.val.indices}
        (folder / "a/new.jpg").write_bytes(b"new")
        names, said = self.part(folder, tmp_path / "best.safetensors", facts)
        assert len(names) == 41
        assert "copy split.csv of their run beside them" in said[0]

    @pytest.mark.parametrize("facts", [{}, {"held_out": 3}, {"held_out": {"val_fraction": "x", "seed": []}}])
    def test_another_folder_is_evaluated_whole(self, folder: Path, facts: dict[str, object]) -> None:
        assert len(self.part(folder, None, facts)[0]) == 40

    @pytest.mark.parametrize("content", [b"path,label,split\na,b,other\n", b"x", b'path,label,split\n"'])
    def test_a_broken_record(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / RECORD).write_bytes(content)
        if content == b"x":
            assert read_record(tmp_path / RECORD) == {}
            return
        with pytest.raises(UserError, match="cannot be used: it is no list of path, label and split"):
            read_record(tmp_path / RECORD)

    def test_it_is_found_beside_weights_checkpoints_and_folders(self, tmp_path: Path) -> None:
        (tmp_path / RECORD).write_bytes(b"")
        for place in (tmp_path, tmp_path / "best.safetensors", tmp_path / "step_00000001/model.safetensors"):
            assert record_beside(place) == tmp_path / RECORD
        assert record_beside(tmp_path / "a/b/c/d") is None
