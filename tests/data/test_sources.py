from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.project import SHARED

from convmixer.data.classes import ClassMap
from convmixer.data.source import Source, seeded_subset
from convmixer.data.splits import open_split
from convmixer.errors import UserError


def open_set(name: str, url: Path | None = None, *, train: bool = True, **options: Any) -> Source:
    return open_split(name, None if url is None else str(url), "train" if train else "val", train=train, **options)


def all_pixels(source: Source) -> np.ndarray:
    return np.stack([np.asarray(source.read(i)) for i in range(len(source))])


def test_digits_are_scikit_learns_with_a_stratified_fifth_held_out() -> None:
    oracle = load_digits()
    splits = [open_set("Digits", train=train) for train in (True, False)]
    pixels = np.concatenate([all_pixels(split) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (1797, 8, 8, 1)
    # Each image of the original is in one of the splits, once: 16 levels become 255.
    ours = sorted((label, image.tobytes()) for label, image in zip(labels.tolist(), pixels, strict=True))
    scaled = np.rint(oracle.images / 16 * 255).astype(np.uint8)
    theirs = sorted((label, image.tobytes()) for label, image in zip(oracle.target.tolist(), scaled, strict=True))
    assert ours == theirs
    counts = np.bincount(oracle.target)
    np.testing.assert_array_equal(np.bincount(splits[1].labels), np.rint(counts / 5))
    assert splits[0].classes.names == tuple("0123456789")
    assert splits[0].name(17) == "digits/train/17"


def test_limit_is_the_same_random_subset_in_the_old_order() -> None:
    whole = open_set("digits")
    part = seeded_subset(whole, 100, seed=4)
    again = seeded_subset(whole, 100, seed=4)
    numbers = [int(part.name(i).rpartition("/")[2]) for i in range(100)]
    assert len(part) == len(part.labels) == 100
    assert numbers == sorted(set(numbers))
    assert numbers[-1] > 1000  # from all over the set
    assert numbers == [int(again.name(i).rpartition("/")[2]) for i in range(100)]
    assert numbers != [int(seeded_subset(whole, 100, seed=5).name(i).rpartition("/")[2]) for i in range(100)]
    np.testing.assert_array_equal(part.labels, whole.labels[numbers])
    np.testing.assert_array_equal(all_pixels(part), all_pixels(whole)[numbers])
    assert len(seeded_subset(whole, 10**6, seed=0)) == len(whole)


def test_unknown_set_and_other_classes_are_refused() -> None:
    with pytest.raises(UserError, match="cifar10, datasets, digits, imagenet, manifest"):
        open_set("mnist")
    with pytest.raises(UserError, match="classes"):
        open_set("digits", classes=ClassMap(("cat", "dog")))


class Python2Pickler(pickle._Pickler):
    """Writes bytes and str as Python 2 wrote its str, which is what the original files hold."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)
    # Of pickle._Pickler, whose stub lacks them.
    write: Callable[[bytes], object]
    memoize: Callable[[object], None]

    def save_string(self, text: bytes | str) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(entry: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(entry)
    return file.getvalue().replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")


def python3_pickle(entry: object) -> bytes:
    return pickle.dumps(entry, protocol=2)


def write_cifar10(folder: Path, dump: Any = python3_pickle) -> tuple[np.ndarray, list[int]]:
    """Six batches of 4 images; returns pixels [24, 3, 32, 32] and labels, training first."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    labels = [int(x) for x in np.random.default_rng(1).integers(0, 10, 24)]
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        part = slice(4 * i, 4 * i + 4)
        entry = {b"data": pixels[part].reshape(4, 3072), b"labels": labels[part], b"batch_label": b"a batch"}
        (folder / name).write_bytes(dump(entry))
    return pixels, labels


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle])
def test_cifar10_batches(tmp_path: Path, dump: Any) -> None:
    pixels, labels = write_cifar10(tmp_path / "cifar-10-batches-py", dump)
    for url in (tmp_path, tmp_path / "cifar-10-batches-py"):
        train, val = open_set("CIFAR10", url), open_set("cifar10", url, train=False)
        np.testing.assert_array_equal(all_pixels(train), pixels[:20].transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(all_pixels(val), pixels[20:].transpose(0, 2, 3, 1))
        assert [*train.labels, *val.labels] == labels
    assert train.classes.names[3] == "cat"


class Payload:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.what = call, arguments

    def __reduce__(self) -> Any:
        return self.what


@pytest.mark.parametrize("call", [os.system, eval, exec, getattr, np.load, np.fromfile, subprocess.Popen])
def test_cifar10_pickle_that_would_run_something_is_refused(tmp_path: Path, call: Any) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(pickle.dumps({b"data": Payload(call, f"touch {tmp_path}/ran"), b"labels": []}, protocol=2))
    with pytest.raises(UserError, match=r"test_batch is not a CIFAR-10 batch: it names") as refusal:
        open_set("cifar10", tmp_path, train=False)
    assert refusal.value.exit_code == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        python3_pickle({b"data": np.zeros((2, 3072), np.uint8)}),
        python3_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}),
        python3_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}),
        python3_pickle({b"data": np.zeros((2, 3000), np.uint8), b"labels": [1, 2]}),
        python3_pickle([1, 2, 3]),
    ],
    ids=["empty", "text", "no labels", "fewer labels", "label 10", "short rows", "a list"],
)
def test_damaged_cifar10_batch_is_refused(tmp_path: Path, content: bytes) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match="data_batch_3 is not a CIFAR-10 batch") as refusal:
        open_set("cifar10", tmp_path)
    assert refusal.value.exit_code == 1


def test_missing_cifar10(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data_url"):
        open_set("cifar10")
    with pytest.raises(UserError, match="cifar-10-batches-py") as refusal:
        open_set("cifar10", tmp_path)
    assert refusal.value.exit_code == 2
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py/data_batch_2").unlink()
    with pytest.raises(UserError, match="data_batch_2 is missing"):
        open_set("cifar10", tmp_path)


@pytest.mark.slow
def test_cifar10_whole(tmp_path: Path) -> None:
    tool = SHARED / "tools/unpack_cifar10.py"
    if not tool.is_file():
        pytest.skip("needs shared/tools and shared/data/cifar10")
    subprocess.run([sys.executable, tool, tmp_path], check=True)
    subprocess.run([sys.executable, tool, tmp_path / "all.npz"], check=True)
    oracle = np.load(tmp_path / "all.npz")
    for train, name in ((True, "train"), (False, "test")):
        source = open_set("cifar10", tmp_path, train=train)
        np.testing.assert_array_equal(all_pixels(source), oracle[f"x_{name}"])
        np.testing.assert_array_equal(source.labels, oracle[f"y_{name}"])
