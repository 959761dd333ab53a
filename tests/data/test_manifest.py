"""Lists of files: what they may look like, and the line that is named where one is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Command, Run, ToyOptions

from convmixer.data.classes import ClassMap
from convmixer.data.source import Source
from convmixer.data.splits import open_split, source_of
from convmixer.errors import UserError


def write_list(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "d e.png", "f,g.png"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def opened(path: Path, split: str = "train", classes: ClassMap | None = None) -> Source:
    return open_split("imagenet", str(path), split, train=split == "train", classes=classes)


def content(source: Source) -> list[tuple[bytes, str]]:
    labels = [source.classes.names[label] for label in source.labels.tolist()]
    return [(bytes(source.read(index)), label) for index, label in enumerate(labels)]


CSV = 'path,label,split\na.png,dog,train\nb.png,cat,val\n"f,g.png",cat,train\nd e.png,dog,val\n'


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace("path,label,split", " Path , LABEL,Split"),
        'split,note,label,path\ntrain,x,dog,a.png\ntest,,cat,b.png\ntrain,,cat,"f,g.png"\ntest,,dog,d e.png\n',
    ],
)
def test_a_table_with_a_column_of_splits(images: Path, text: str) -> None:
    path = write_list(images / "list.csv", text)
    train = opened(path)
    assert train.classes.names == ("cat", "dog")
    assert content(train) == [(b"a.png", "dog"), (b"f,g.png", "cat")]
    assert content(opened(path, "val", train.classes)) == [(b"b.png", "cat"), (b"d e.png", "dog")]


def test_json_lines_and_tabs(images: Path) -> None:
    entries = [{"path": "a.png", "label": "x"}, {"path": str(images / "b.png"), "label": "y", "width": 3}]
    write_list(images / "train.jsonl", "\n\n".join(json.dumps(entry) for entry in entries))
    write_list(images / "val.tsv", "label\tpath\ny\tf,g.png\n")
    train = open_split("imagenet", str(images), "train.jsonl", train=True)
    assert content(train) == [(b"a.png", "x"), (b"b.png", "y")]
    val = open_split("imagenet", str(images), "val.tsv", train=False, classes=train.classes)
    assert (content(val), val.labels.tolist()) == ([(b"f,g.png", "y")], [1])


def test_numbers_are_in_their_order_and_names_in_one_unicode_form(images: Path) -> None:
    numbers = "".join(f"a.png,{number}\n" for number in (10, 2, *range(12)))
    train = open_split(
        "manifest", str(write_list(images / "n.csv", f"path,label\n{numbers}").parent), "n.csv", train=True
    )
    assert train.classes.names == tuple(map(str, range(12)))
    assert train.labels.tolist() == [10, 2, *range(12)]
    accents = write_list(images / "u.csv", "path,label\na.png,caf\u00e9\nb.png,cafe\u0301\nc.png,tea\n")
    assert open_split("manifest", str(accents.parent), "u.csv", train=True).classes.names == ("caf\u00e9", "tea")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no column 'path'; it has none"),
        ("file,label\na.png,x\n", "names no column 'path'; it has file, label"),
        ("path,label,split\na.png,x,train\nb.png,,train\n", "line 3: no label"),
        ("path,label,split\n,x,train\n", "line 2: no path"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "line 3: no split"),
        ("path,label,split\na.png,x,dev\nb.png,y,dev\n", "has no split 'train'; it has dev"),
        ("path,label,split\na.png,x,train\nb.png,x,train\n", "has a single class, 'x'"),
        ("path,label,split\nnone.png,x,train\nb.png,y,train\n", "line 2: there is no file"),
        ('path,label,split\n"a.png,x,train\n', "unexpected end of data"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(images: Path, text: str, message: str) -> None:
    path = write_list(images / "list.csv", text)
    with pytest.raises(UserError) as refusal:
        opened(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_other_wrong_lists(images: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*none\.csv"):
        opened(images / "none.csv")
    write_list(images / "list.jsonl", '{"path": "a.png", "label": 1}\n[1]\n')
    with pytest.raises(UserError, match=r"list\.jsonl, line 2: no JSON object"):
        opened(images / "list.jsonl")
    (images / "list.csv").write_bytes(b"path,label\na.png,caf\xe9\n")
    with pytest.raises(UserError, match=r"list\.csv: not UTF-8"):
        opened(images / "list.csv")
    path = write_list(images / "list.csv", CSV.replace("b.png,cat", "b.png,cow"))
    with pytest.raises(UserError, match="line 3: the training classes have no 'cow'; they are cat, dog"):
        opened(path, "val", opened(path).classes)


def listed(folder: Path, path: Path, *, shuffled: bool = False) -> Path:
    """The images of a folder of classes as a list, in their order or in another one."""
    rows = ["path,label,split"]
    for split in ("train", "val"):
        found = sorted((folder / split).glob("*/*"), key=lambda image: image.name if shuffled else str(image))
        rows += [f"{image},{image.parent.name},{split}" for image in found]
    return write_list(path, "\n".join([*rows, ""]))


def test_a_list_in_the_folders_order_trains_to_the_same_weights(
    toy: Path, toy_options: ToyOptions, convmixer: Command, here: Path, tmp_path: Path
) -> None:
    by_folder = Run.below(here, convmixer("train", *toy_options(toy)))
    folder = (by_folder.best / "best.safetensors").read_bytes()
    shutil.rmtree(here / "runs")
    path = listed(toy, tmp_path / "list.csv")
    by_list = Run.below(here, convmixer("train", *toy_options(path)))
    assert (by_list.best / "best.safetensors").read_bytes() == folder


def test_the_commands_take_a_list(
    toy: Path, toy_options: ToyOptions, convmixer: Command, here: Path, tmp_path: Path
) -> None:
    path = listed(toy, tmp_path / "list.csv", shuffled=True)
    assert source_of("ImageNet", str(path), "train") == "manifest"
    done = convmixer("train", *toy_options(path, epochs=3, ckpt_save_every_step=1))
    assert done.code == 0, done.err
    assert "24 training and 13 evaluation images of 3 classes" in done.err
    run = Run.below(here, done)
    told = run.metrics("eval")[-1]
    scored = convmixer("eval", "--pretrained", run.best / "best.safetensors", "--data_url", path, "-j0")
    assert scored.code == 0, scored.err
    best = max(entry["Top1-Acc"] for entry in run.metrics("eval"))
    assert f"'Top1-Acc': {best}" in scored.out
    assert told["unreadable"] == 0
    exported = convmixer("export", "--pretrained", run.best / "best.safetensors", "--data_url", path, "--output=m.onnx")
    assert exported.code == 0, exported.err
    by_onnx = convmixer("eval-onnx", path, "--onnx_path=m.onnx")
    assert f"'Top1-Acc': {best}" in by_onnx.out, by_onnx.err
    checked = convmixer("check-data", path, "--image_size=8", "-j0")
    assert checked.code == 0, checked.err
    assert "  train   24 images in 3 classes" in checked.out


def test_a_missing_image_of_a_list_is_a_bad_image(images: Path) -> None:
    path = write_list(images / "list.csv", CSV.replace('"f,g.png"', "gone.png"))
    train = opened(path)
    np.testing.assert_array_equal(train.labels, [1, 0])
    from convmixer.data.limits import BadImage

    with pytest.raises(BadImage, match="No such file"):
        train.read(1)
