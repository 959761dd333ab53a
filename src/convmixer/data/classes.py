"""The class contract: names and their order, which travel with weights, exported files and predictions."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from functools import cached_property


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


def composed(name: str) -> str:
    """A name in Unicode's form NFC: the same on screen is the same class, whether a Mac wrote the folder or not."""
    return unicodedata.normalize("NFC", name)
