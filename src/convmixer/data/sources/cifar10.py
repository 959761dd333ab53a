"""CIFAR-10 in its Python form (A. Krizhevsky, 2009): a folder cifar-10-batches-py with six pickled files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.source import ArraySource
from convmixer.errors import RUN_FAILED, UserError

FOLDER = "cifar-10-batches-py"
CLASSES = ClassMap(("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"))
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = ("test_batch",)

# What a pickled NumPy array of bytes is made of; a pickle that names anything else is refused before it can run it.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        # NumPy 2 renamed the module that the original files name.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def open_cifar10(data_url: str | None, *, train: bool) -> ArraySource:
    """Pixels uint8 [n, 32, 32, 3]: 50,000 for training, the 10,000 test images for validation.

    `data_url`: the folder cifar-10-batches-py, or the one that holds it.
    """
    if data_url is None:
        raise UserError(f"--data_url: cifar10 needs the folder that holds {FOLDER}")
    given = Path(data_url).absolute()
    folder = next((f for f in (given / FOLDER, given) if (f / _TEST[0]).is_file()), None)
    if folder is None:
        raise UserError(f"--data_url: {given} holds no {FOLDER} with its six batch files")
    parts = [_read_batch(folder / name) for name in (_TRAIN if train else _TEST)]
    pixels = np.concatenate([pixels for pixels, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return ArraySource(pixels, labels, CLASSES, f"cifar10/{'train' if train else 'val'}")


def open_source(data_url: str | None, split_dir: str, *, train: bool, classes: ClassMap | None) -> ArraySource:
    return open_cifar10(data_url, train=train)


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, 32, 32, 3] and labels int64 [n] of one file."""
    try:
        entry = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        rows = np.asarray(entry[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(entry[b"labels"], dtype=np.int64)
        if labels.shape != (len(rows),) or not ((labels >= 0) & (labels < len(CLASSES))).all():
            raise ValueError("its labels do not fit its images")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing", exit_code=RUN_FAILED) from error
    except Exception as error:  # a damaged pickle raises errors of many classes
        raise UserError(f"{path} is not a CIFAR-10 batch: {error}", exit_code=RUN_FAILED) from error
    return np.ascontiguousarray(rows.transpose(0, 2, 3, 1)), labels
