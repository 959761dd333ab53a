"""A split in shards: where it is looked for, its labels and classes, and what is refused."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data.shards.tars import png, write_shards, write_tar

from convmixer.data.classes import ClassMap
from convmixer.data.limits import BadImage
from convmixer.data.shards.locations import expanded
from convmixer.data.shards.samples import Samples, scan
from convmixer.data.shards.source import ShardSource, open_shards
from convmixer.data.shards.tar import ReadAt
from convmixer.data.source import Source
from convmixer.data.sources.shards import accepts
from convmixer.data.splits import open_split
from convmixer.errors import UserError


def opened(folder: Path | str, split: str = "train", classes: ClassMap | None = None) -> ShardSource:
    return open_shards(str(folder), split, "--train_dir", classes)


def levels(source: Source) -> list[int]:
    """The grey of each image, which is its number in `write_shards`."""
    known = {png(level): level for level in range(256)}
    return [known[bytes(source.read(index))] for index in range(len(source))]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("a-{2..0}.tar", ["a-2.tar", "a-1.tar", "a-0.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("http://h/{0..1}.tar?token=x", ["http://h/0.tar?token=x", "http://h/1.tar?token=x"]),
        ("plain.tar", ["plain.tar"]),
        ("{odd}.tar", ["{odd}.tar"]),
    ],
)
def test_braces(pattern: str, found: list[str]) -> None:
    assert expanded(pattern) == found


def test_too_many_shards() -> None:
    with pytest.raises(UserError, match="more than 1000000 shards"):
        expanded("{0..999}-{0..9999}.tar")


@pytest.mark.parametrize(
    "split", ["train", "train-*.tar", "train-{000000..000001}.tar", "HERE/train-{000000,000001}.tar"]
)
def test_where_shards_are_looked_for(tmp_path: Path, split: str) -> None:
    """In a folder of the split's name, as a pattern, or in one folder for all splits."""
    folder = tmp_path / "data"
    if split == "train":
        write_shards(folder / "train", "any-", (2, 3))
        write_shards(folder, "val-", (2,))
    else:
        write_shards(folder, "train-", (2, 3))
    source = opened(folder, split.replace("HERE", str(folder)))
    assert levels(source) == [0, 1, 2, 3, 4]
    assert source.labels.tolist() == [0, 1, 2, 0, 1]
    assert source.classes.names == ("0", "1", "2")
    assert source.name(2).endswith("-000001.tar/0002.png")


def test_all_splits_in_one_folder(tmp_path: Path) -> None:
    write_shards(tmp_path / "x", "train-", (4,))
    write_shards(tmp_path / "x", "imagenet-val-", (3,))
    write_shards(tmp_path / "x", "trainer-", (1,))
    assert len(opened(tmp_path / "x")) == 4
    assert len(opened(tmp_path / "x", "val")) == 3
    write_shards(tmp_path / "y", "imagenet1k-validation-", (2,))
    assert len(opened(tmp_path / "y", "val")) == 2
    assert accepts(str(tmp_path / "y"), "val")


def test_what_is_accepted(tmp_path: Path, toy: Path) -> None:
    write_shards(tmp_path / "x/train", "a-", (3,))
    assert accepts(str(tmp_path / "x"), "train")
    assert accepts(str(tmp_path), "{0..1}.tar")
    assert accepts("http://127.0.0.1:9/x", "train")  # without asking
    assert not accepts("http://127.0.0.1:9/x", "train.csv")
    assert not accepts(str(tmp_path / "x"), "val")
    assert not accepts(str(toy), "train")
    # ILSVRC2012's tar file of each class beside the folder that was made of it.
    (tmp_path / "x/train/n01440764").mkdir()
    assert not accepts(str(tmp_path / "x"), "train")


def test_the_registry_opens_them(tmp_path: Path) -> None:
    write_shards(tmp_path / "train", "a-", (3,))
    for name in ("shards", "imagenet"):
        assert levels(open_split(name, str(tmp_path), "train", train=True)) == [0, 1, 2]


def test_labels_that_are_names(tmp_path: Path) -> None:
    """One that is none makes all of them names."""
    members = [(f"{i}.png", png(i)) for i in range(4)]
    members += [("0.cls", b"rose"), ("1.cls", b"10"), ("2.cls", b"2"), ("3.cls", b"rose")]
    write_tar(tmp_path / "train/a.tar", sorted(members))
    source = opened(tmp_path)
    assert source.classes.names == ("10", "2", "rose")
    assert source.labels.tolist() == [2, 0, 1, 2]
    reversed_ = ClassMap(("rose", "other", "2", "10"))
    assert opened(tmp_path, classes=reversed_).labels.tolist() == [0, 3, 2, 0]
    with pytest.raises(UserError, match="has a class 'rose' that the 2 training classes do not have"):
        opened(tmp_path, classes=ClassMap(("10", "2")))


def test_numbers_for_the_classes_of_the_training_split(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path / "val", "a-", (4,), classes=2)
    ten = ClassMap(tuple(str(number) for number in range(10)))
    assert opened(tmp_path, "val", ten).classes == ten
    with pytest.raises(UserError, match="has a class '1' that the 1 training classes do not have"):
        opened(tmp_path, "val", ClassMap(("0",)))
    # Of weights with names the numbers are the places.
    source = opened(tmp_path, "val", ClassMap(("tench", "goldfish", "shark")))
    assert source.labels.tolist() == [0, 1, 0, 1]
    assert source.classes.names == ("tench", "goldfish", "shark")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], "no image in .*0.tar .* has a label .*; ignored: image without a label 1"),
        ([("a.png", png(1)), ("a.cls", b"0")], "has a single class, '0'; it takes two"),
        ([("a.png", png(1)), ("a.cls", b"999999999")], "has the label 999999999; at most 1000000 classes"),
    ],
)
def test_refusals(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    write_tar(tmp_path / "train/0.tar", members)
    with pytest.raises(UserError, match=message) as error:
        opened(tmp_path)
    assert error.value.exit_code == 1


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--train_dir: there are no shards \(\*\.tar\) at "):
        opened(tmp_path)
    write_shards(tmp_path, "a-", (2,))
    with pytest.raises(UserError, match=r"a-000001\.tar: there is no such file"):
        opened(tmp_path, "a-{000000..000001}.tar")


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    _, two = write_shards(tmp_path / "train", "a-", (4, 4))
    os.truncate(two, two.stat().st_size - 10240 + 700)
    with pytest.raises(UserError, match=r"a-000001\.tar: is cut short"):
        opened(tmp_path)


def test_a_shard_that_is_cut_while_it_is_used(tmp_path: Path) -> None:
    (one,) = write_shards(tmp_path / "train", "a-", (4,))
    source = opened(tmp_path)
    os.truncate(one, 1100)
    with pytest.raises(BadImage, match="its shard ends before it"):
        source.read(3)
    one.unlink()
    with pytest.raises(BadImage, match="No such file"):
        source.read(0)


def test_the_cache_is_used_and_follows_the_files(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []

    def counted(read: ReadAt, size: int, shard: str, on_bytes: Callable[[int], None], labelled: bool) -> Samples:
        scanned.append(shard)
        return scan(read, size, shard, on_bytes, labelled=labelled)

    monkeypatch.setattr("convmixer.data.shards.index.scan", counted)
    paths = write_shards(tmp_path / "train", "a-", (4, 4))
    first = opened(tmp_path)
    assert len(scanned) == 2
    again = opened(tmp_path)
    assert len(scanned) == 2
    assert [again.name(i) for i in range(8)] == [first.name(i) for i in range(8)]
    write_tar(paths[1], [("x.png", png(9)), ("x.cls", b"1")])
    assert levels(opened(tmp_path)) == [0, 1, 2, 3, 9]
    assert scanned[2:] == [str(paths[1])]
    for file in cache.glob("*.npz"):  # damaged ones are made again
        file.write_bytes(b"nonsense")
    assert levels(opened(tmp_path)) == [0, 1, 2, 3, 9]
    assert len(scanned) == 5
    shutil.rmtree(cache)
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("not a folder")  # and one that cannot be written is none
    assert levels(opened(tmp_path)) == [0, 1, 2, 3, 9]


def test_it_can_be_handed_to_another_process(tmp_path: Path) -> None:
    write_shards(tmp_path / "train", "a-", (4,))
    source = pickle.loads(pickle.dumps(opened(tmp_path)))
    assert levels(source) == [0, 1, 2, 3]
    np.testing.assert_array_equal(source.labels, [0, 1, 2, 0])


def test_the_users_files_are_as_before(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "train", "a-", (4, 4))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    levels(opened(tmp_path))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "train").iterdir()} == before
