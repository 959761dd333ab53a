"""A data set in the layout of Hugging Face `datasets`: a folder of parquet files, or a name on the hub.

Images stay encoded, in Arrow tables that are mapped from the disk, so that loader processes share them. Nothing of a
data set is executed: `datasets` 4 runs no scripts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.data.classes import ClassMap, composed, labelled, sorted_classes
from convmixer.data.image_file import read_image_file
from convmixer.data.limits import BadImage
from convmixer.data.source import TRAIN_NAMES, VAL_NAMES, Unnamed, names_of_split
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.packages import needed_for
from convmixer.printable import shortened

# Of several columns that may be the labels (CIFAR-100 has fine and coarse ones) the first of these is.
_USUAL_LABELS = ("label", "labels", "fine_label", "class", "target")


def accepts(data_url: str, split_dir: str) -> bool:
    folder = Path(data_url)
    if folder.suffix == ".parquet":
        return True
    # No deeper: what is mistyped would be looked for in the whole tree.
    inner = folder / split_dir
    return any(
        inner.glob("*.parquet") if inner.is_dir() else chain(folder.glob("*.parquet"), folder.glob("*/*.parquet"))
    )


def open_source(data_url: str | None, split_dir: str, *, train: bool, classes: ClassMap | None) -> TableSource:
    """A split of the data set: the one called `split_dir`, or for `val` validation or test."""
    if data_url is None:
        raise UserError("--data_url: the set datasets needs a folder of parquet files, or a data set's name on the hub")
    table, option = _load(data_url, split_dir, train), "--train_dir" if train else "--val_dir"
    image, label = _columns(table, data_url)
    labels, own = _labels(table, label, f"{option}: {data_url}")
    known, order = labelled(own, classes, f"{option}: {data_url}")
    return TableSource(table, image, order[labels], known, f"{data_url}/{split_dir}")


class TableSource(Unnamed):
    """The rows of a table of `datasets`; `image`: its column of encoded images."""

    def __init__(self, table: Any, image: str, labels: np.ndarray, classes: ClassMap, origin: str) -> None:
        self.labels, self.classes, self.origin = labels, classes, origin
        # As it is stored: decoding is for our own readers, which refuse what they must.
        encoded = table.select_columns([image]).cast_column(image, _encoded_type())
        self._images, self._column = encoded, image

    def read(self, index: int) -> bytes:
        image = self._images[index][self._column]
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise BadImage("no image in this row")
        encoded: bytes | None = image["bytes"]
        return read_image_file(image["path"]) if encoded is None else encoded


def _load(data_url: str, split_dir: str, train: bool) -> Any:
    """The table of a split, as `datasets` has it."""
    with needed_for("--set: datasets"):
        import datasets
    datasets.disable_progress_bars()
    path = Path(data_url).absolute()
    meant = names_of_split(split_dir, train=train)
    try:
        if path.exists():
            name, files = _files_of_split(path, meant, "--train_dir" if train else "--val_dir")
            # Each split by itself: of several together the types of the first, class names too, would count for all.
            return datasets.load_dataset("parquet", data_files={name: files}, split=name)
        names = datasets.get_dataset_split_names(data_url)
        name = _first_of(meant, names, data_url, "--train_dir" if train else "--val_dir")
        return datasets.load_dataset(data_url, split=name)
    except UserError:
        raise
    except Exception as error:  # of a dozen libraries: a network, a disk, a file that is no parquet
        raise UserError(f"--data_url: {data_url} cannot be opened: {first_line(error)}", exit_code=RUN_FAILED) from None


def _files_of_split(path: Path, meant: tuple[str, ...], option: str) -> tuple[str, list[str]]:
    """The split that is meant, and its parquet files: those with its name in theirs, or in that of a folder above.

    A single file is the split that is asked for.
    """
    if path.is_file():
        return meant[0], [str(path)]
    files: dict[str, list[str]] = {}
    for file in sorted(path.glob("**/*.parquet")):
        words = re.split(r"[/._-]", str(file.relative_to(path).with_suffix("")))
        split = next((name for name in (*meant, *TRAIN_NAMES, *VAL_NAMES) if name in words), TRAIN_NAMES[0])
        files.setdefault(split, []).append(str(file))
    if not files:
        raise UserError(f"--data_url: {path} holds no parquet files", exit_code=RUN_FAILED)
    name = _first_of(meant, list(files), str(path), option)
    return name, files[name]


def _first_of(meant: tuple[str, ...], names: Sequence[str], data_url: str, option: str) -> str:
    for name in meant:
        if name in names:
            return name
    raise UserError(f"{option}: {data_url} has no split {meant[0]!r}; it has {shortened(sorted(names))}")


def _encoded_type() -> Any:
    import datasets

    return datasets.Image(decode=False)


def _columns(table: Any, data_url: str) -> tuple[str, str]:
    """Names of the columns of images and of labels, by their types; the images are left encoded."""
    import datasets

    features = table.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not images:
        # Written without types: a column of {bytes, path}.
        images = [name for name, feature in features.items() if isinstance(feature, dict) and "bytes" in feature]
    usual = [name for name in _USUAL_LABELS if name in (labels or features)]
    labels = usual[:1] or labels
    for kind, names in (("images", images), ("labels", labels)):
        if len(names) != 1:
            raise UserError(
                f"--data_url: {data_url} has {len(names) or 'no'} columns of {kind} among {shortened(list(features))}",
                exit_code=RUN_FAILED,
            )
    return images[0], labels[0]


def _labels(table: Any, column: str, where: str) -> tuple[np.ndarray, ClassMap]:
    """int64 [n] and what they count in. Raises UserError for rows without a label, as splits to be judged by others."""
    import datasets

    feature, values = table.features[column], list(table[column])
    typed = isinstance(feature, datasets.ClassLabel)
    for row, value in enumerate(values):
        if value is None or (typed and not 0 <= value < len(feature.names)):
            raise UserError(f"{where}: row {row} has no label ({column} is {value})", exit_code=RUN_FAILED)
    if typed:
        return np.array(values, dtype=np.int64), ClassMap(tuple(composed(name) for name in feature.names))
    texts = [composed(str(value)) for value in values]
    classes = sorted_classes(texts)
    return np.array([classes.labels[text] for text in texts], dtype=np.int64), classes
