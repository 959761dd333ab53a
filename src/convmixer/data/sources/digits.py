"""The built-in digits: 1,797 handwritten ones of 8 x 8 pixels, shipped with the package so that anything runs offline.

The test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0), as scikit-learn's load_digits() has it.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.source import ArraySource
from convmixer.randomness import Stream, hashes

CLASSES = ClassMap(tuple("0123456789"))
_LEVELS = 16  # the file's values are 0 to 16
_HELD_OUT = 5  # one in five


def open_digits(*, train: bool) -> ArraySource:
    """Pixels uint8 [n, 8, 8, 1]; a random fifth of each class, always the same, is held out for validation."""
    with (files("convmixer.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    chosen = _held_out(labels) != train
    pixels = np.rint(images[chosen] * (255 / _LEVELS)).astype(np.uint8)[..., None]
    return ArraySource(pixels, labels[chosen], CLASSES, f"digits/{'train' if train else 'val'}")


def open_source(data_url: str | None, split_dir: str, *, train: bool, classes: ClassMap | None) -> ArraySource:
    return open_digits(train=train)


def _held_out(labels: np.ndarray) -> np.ndarray:
    """bool [n]: of each class the fifth with the smallest hashes (in file order, writers would be held out whole)."""
    draws = hashes(Stream.SUBSET, 0, np.arange(len(labels)))
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[members[np.argsort(draws[members])][: round(len(members) / _HELD_OUT)]] = True
    return held_out
