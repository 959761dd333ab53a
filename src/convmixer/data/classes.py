"""The class contract: names and their order, which travel with weights, exported files and predictions."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import shortened


@dataclass(frozen=True)
class ClassMap:
    """Names of the classes; the position of a name is the label that the network is trained on."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int | None:
        """Label of a class name, in any Unicode form, or None where there is no such class."""
        return self.labels.get(composed(name))

    @cached_property
    def labels(self) -> dict[str, int]:
        """Composed name -> label."""
        return {composed(name): label for label, name in enumerate(self.names)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the names in their order, as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()


def numbered(classes: ClassMap) -> ClassMap | None:
    """The classes 0 ... n-1 in the order of their numbers, where exactly these are the names; else None.

    Sorted as text, as folders are, `10` comes before `2`; weights that name no classes count their outputs.
    """
    numbers = tuple(str(number) for number in range(len(classes)))
    return ClassMap(numbers) if sorted(numbers) == sorted(classes.names) else None


def sorted_classes(names: Iterable[str]) -> ClassMap:
    """Classes of these names, each once, sorted: as numbers where they are 0 ... n-1, else as text."""
    classes = ClassMap(tuple(sorted(set(names))))
    return numbered(classes) or classes


def labelled(own: ClassMap, classes: ClassMap | None, where: str) -> tuple[ClassMap, np.ndarray]:
    """What the labels of a split count in, and the label there, int64 [len(own)], of each of its `own` classes.

    `classes`: those of the training split; None where this is it. `where`: what messages begin with. Raises UserError
    for a training split of one class, and for a class that the training split does not have.
    """
    if classes is None:
        refuse_single(own, where)
        return own, np.arange(len(own))
    unknown = [name for name in own.names if classes.index(name) is None]
    if unknown:
        raise UserError(
            f"{where} has a class {unknown[0]!r} that the training classes do not have\n"
            f"its classes: {shortened(own.names)}; the training classes: {shortened(classes.names)}",
            exit_code=RUN_FAILED,
        )
    return classes, np.array([classes.index(name) for name in own.names], dtype=np.int64)


def refuse_single(classes: ClassMap, where: str) -> None:
    """Raise UserError for a training split of one class."""
    if len(classes) == 1:
        raise UserError(f"{where} has a single class, {classes.names[0]!r}; it takes two", exit_code=RUN_FAILED)


def composed(name: str) -> str:
    """A name in Unicode's form NFC: the same on screen is the same class, whether a Mac wrote the folder or not."""
    return unicodedata.normalize("NFC", name)
