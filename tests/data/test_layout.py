"""Which layouts of a folder are found, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from convmixer.data.layout import Layout, find_layout
from convmixer.errors import UserError


def tree(root: Path, *files: str) -> str:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return str(root)


CLASSES = ("a/1.jpg", "b/2.png")


def split(name: str) -> list[str]:
    return [f"{name}/{file}" for file in CLASSES]


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation", "test", "TEST", "eval"])
def test_folders_of_splits_by_any_usual_name(tmp_path: Path, train: str, val: str) -> None:
    data = tree(tmp_path, *split(train), *split(val))
    found = find_layout(data, "train", "val")
    assert (found.train_dir, found.val_dir) == (train, val)
    assert (found.remark is None) == ((train, val) == ("train", "val"))


def test_one_of_several_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    data = tree(tmp_path, *split("train"), *split("test"), *split("valid"))
    found = find_layout(data, "train", "val")
    assert found.val_dir == "valid"
    assert found.remark is not None
    assert "test is left alone, --val_dir test takes it" in found.remark


def test_what_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    data = tree(tmp_path, *split("train"), *split("val"), *split("test"))
    assert find_layout(data, "train", "test").val_dir == "test"
    assert find_layout(data, "train", "mine") == Layout("train", "mine")
    assert find_layout(data, "mine", "val") == Layout("mine", "val")


def test_without_evaluation_images(tmp_path: Path) -> None:
    assert find_layout(tree(tmp_path / "x", *split("train")), "train", "val").val_dir is None
    found = find_layout(tree(tmp_path / "y", *CLASSES, ".git/z/3.jpg"), "train", "val")
    assert (found.train_dir, found.val_dir) == (".", None)
    assert found.remark is not None
    assert found.remark.endswith("has a folder per class: a, b")


def test_a_class_may_have_folders_and_runs_lie_beside(tmp_path: Path) -> None:
    run = "2026-11-26_140501_convmixer_8_2"
    data = tree(tmp_path, *CLASSES, "b/deep/deeper/3.jpg", "c/deep/4.jpg", f"{run}/x/5.png", f"26{run[4:]}/x/6.png")
    found = find_layout(data, "train", "val")
    assert (found.train_dir, found.val_dir) == (".", None)
    assert str(found.remark).endswith(": a, b, c")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "has no folders of classes"),
        (["a.jpg"], "holds images, but no folders of classes"),
        (["a/1.jpg"], "has images in one folder only, a"),
        (["a/1.txt", "b/2.txt"], "has no images in its folders (a, b)"),
        (["in/deep/a/1.jpg", "in/deep/b/2.jpg"], "has its folders of classes deeper; did you mean {}/in/deep?"),
        (["one/a/1.jpg", "one/b/2.jpg", "two/a/1.jpg"], "has its folders of classes deeper; did you mean {}/one?"),
    ],
)
def test_what_fits_none_is_refused_with_the_tree_that_is_wanted(tmp_path: Path, files: list[str], said: str) -> None:
    data = tree(tmp_path / "data", *files) if files else str(tmp_path)
    with pytest.raises(UserError) as refused:
        find_layout(data, "train", "val")
    first, second = str(refused.value).splitlines()
    assert said.format(data) in first
    assert second.startswith("expected FOLDER/<class>/<image>, or FOLDER/train/<class>/<image>")
