"""Tables of Hugging Face `datasets`, from parquet files that pyarrow and datasets write here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Command, ToyOptions

from convmixer.data.classes import ClassMap
from convmixer.data.limits import BadImage
from convmixer.data.source import Source
from convmixer.data.splits import open_split, source_of
from convmixer.errors import UserError

pytest.importorskip("datasets", reason="datasets is not installed")


def encoded(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_typed(path: Path, levels: list[int], labels: list[int], names: list[str]) -> Path:
    """A file as `datasets` itself writes one: columns with the types Image and ClassLabel."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "id": datasets.Value("int64")}
    )
    columns = {"image": [{"bytes": encoded(level), "path": None} for level in levels], "label": labels, "id": levels}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    return path


def write_plain(path: Path, levels: list[int], labels: list[object]) -> Path:
    """A file of any other program: a struct with bytes, and labels without names."""
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": encoded(level), "path": f"{level}.png"} for level in levels])
    parquet.write_table(pa.table({"img": images, "label": pa.array(labels)}), path)
    return path


def opened(path: Path, split: str = "train", classes: ClassMap | None = None) -> Source:
    return open_split("imagenet", str(path), split, train=split == "train", classes=classes)


def content(source: Source) -> list[tuple[int, str]]:
    found = []
    for index, label in enumerate(source.labels.tolist()):
        image = Image.open(io.BytesIO(bytes(source.read(index))))
        found.append((int(np.asarray(image)[0, 0, 0]), source.classes.names[label]))
    return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_a_folder_of_typed_tables(tmp_path: Path) -> None:
    write_typed(tmp_path / "data/train-00000-of-00001.parquet", [1, 2, 3], [1, 0, 1], ["dog", "cat"])
    write_typed(tmp_path / "data/validation-00000-of-00001.parquet", [4, 5], [0, 1], ["dog", "cat"])
    assert source_of("ImageNet", str(tmp_path / "data"), "train") == "datasets"
    train = opened(tmp_path / "data")
    assert train.classes.names == ("dog", "cat")  # in the order that the file says
    assert content(train) == [(1, "cat"), (2, "dog"), (3, "cat")]
    val = opened(tmp_path / "data", "val", train.classes)
    assert content(val) == [(4, "dog"), (5, "cat")]
    assert train.name(1).endswith("data/train/1")


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [([2, 0, 1], ("0", "1", "2"), [2, 0, 1]), (["b", "a", "b"], ("a", "b"), [1, 0, 1])],
)
def test_a_table_without_types(
    labels: list[object], names: tuple[str, ...], expected: list[int], tmp_path: Path
) -> None:
    path = write_plain(tmp_path / "t.parquet", [7, 8, 9], labels)
    train = opened(path)
    assert (train.classes.names, train.labels.tolist()) == (names, expected)
    assert [level for level, _ in content(train)] == [7, 8, 9]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_typed(data / "train.parquet", [1, 2], [0, 1], ["a", "b"])
    write_typed(data / "test.parquet", [1, 2], [0, 1], ["a", "c"])
    with pytest.raises(UserError, match="has a class 'c' that the training classes do not have"):
        opened(data, "val", opened(data).classes)
    with pytest.raises(UserError, match="has no split 'dev'; it has test, train"):
        open_split("datasets", str(data), "dev", train=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UserError, match="cannot be opened"):
        opened(tmp_path / "broken")
    one = write_plain(tmp_path / "one.parquet", [1, 2], ["x", "x"])
    with pytest.raises(UserError, match="has a single class, 'x'"):
        opened(one)
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"label": [1, 2]}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match="has no columns of images among label"):
        opened(tmp_path / "none.parquet")


def test_of_several_columns_of_labels_the_usual_one_is_taken(tmp_path: Path) -> None:
    import datasets

    kinds = {"coarse_label": datasets.ClassLabel(names=["x", "y"]), "fine_label": datasets.ClassLabel(names=["a", "b"])}
    features = datasets.Features({"image": datasets.Image(), **kinds})
    images = [{"bytes": encoded(level), "path": None} for level in (1, 2)]
    rows = {"image": images, "coarse_label": [0, 1], "fine_label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    assert content(opened(tmp_path / "t.parquet")) == [(1, "b"), (2, "a")]


def test_a_row_without_an_image_is_a_bad_image(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": encoded(1), "path": None}, None], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    source = opened(tmp_path / "t.parquet")
    with pytest.raises(BadImage, match="no image in this row"):
        source.read(1)


@pytest.mark.parametrize(("typed", "label"), [(True, -1), (True, None), (False, None)])
def test_rows_without_a_label_are_no_class(typed: bool, label: int | None, tmp_path: Path) -> None:
    """Splits that others judge have -1: as an index that would be the last class."""
    write_typed(tmp_path / "data/train.parquet", [1, 2], [0, 1], ["0", "1"])
    if typed:
        write_typed(tmp_path / "data/test.parquet", [1, 2], [0, label], ["0", "1"])  # type: ignore[list-item]
    else:
        write_plain(tmp_path / "data/test.parquet", [1, 2], [0, label])
    with pytest.raises(UserError, match=rf"row 1 has no label \(label is {label}\)"):
        opened(tmp_path / "data", "val", opened(tmp_path / "data").classes)


def test_folders_of_tables_are_recognised(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_typed(tmp_path / split / "0000.parquet", [1, 2, 3], [1, 0, 1], ["a", "b"])
    assert source_of("imagenet", str(tmp_path), "train") == "datasets"
    assert content(opened(tmp_path)) == [(1, "b"), (2, "a"), (3, "b")]
    assert len(opened(tmp_path, "val", opened(tmp_path).classes)) == 3
    deep = tmp_path / "images/train/class/deep"
    deep.mkdir(parents=True)
    (deep / "x.parquet").write_bytes(b"")
    assert source_of("imagenet", str(tmp_path / "images"), "train") == "imagenet"
    assert source_of("imagenet", str(tmp_path / "images"), "trian") == "imagenet"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_trains_with_loader_processes(
    tmp_path: Path, toy_options: ToyOptions, convmixer: Command, here: Path
) -> None:
    levels = [*range(0, 60, 5), *range(200, 255, 5)]
    labels = [int(level > 100) for level in levels]
    data = tmp_path / "data"
    write_typed(data / "train.parquet", levels, labels, ["dark", "bright"])
    write_typed(data / "validation.parquet", levels[::4], labels[::4], ["dark", "bright"])
    weights = []
    for workers in (0, 2):
        done = convmixer("train", *toy_options(data, num_parallel_workers=workers), f"--model_postfix={workers}")
        assert done.code == 0, done.err
        (best,) = here.glob(f"runs/best/*_{workers}/best.safetensors")
        weights.append(best.read_bytes())
    assert weights[0] == weights[1]
    checked = convmixer("check-data", data, "--image_size=8", "-j2")
    assert "  train   23 images in 2 classes" in checked.out, checked.err
