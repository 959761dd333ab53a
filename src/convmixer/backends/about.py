"""What an exported model says of itself: one JSON record, in an ONNX file's metadata or beside a file that has none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from convmixer.arch import ACTIVATIONS, Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing

KEY = "convmixer"
FORMAT = 1


@dataclass(frozen=True)
class About:
    """The network, its classes (None where the weights name none) and input, and the SHA-256 of the weight file.

    `precision`: fp32, fp16 or int8. `embed_preprocess`: the graph resizes, crops and normalises itself.
    """

    architecture: Architecture
    classes: ClassMap | None
    preprocessing: Preprocessing
    source_sha256: str
    precision: str = "fp32"
    embed_preprocess: bool = False

    def encode(self) -> str:
        """JSON of the record."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "arch": self.architecture.name,
            "architecture": asdict(self.architecture),
            "classes": list(self.classes.names) if self.classes else None,
            "classes_sha256": self.classes.fingerprint if self.classes else None,
            "preprocessing": self.preprocessing.to_dict(),
            "source_sha256": self.source_sha256,
            "precision": self.precision,
            "embed_preprocess": self.embed_preprocess,
        }
        return json.dumps(values)


def decode(text: str) -> About:
    """The record that `encode` wrote. Raises ValueError for one that is malformed."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("its record is malformed") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"its record is not of format {FORMAT}; a newer convmixer may have written it")
    try:
        names = values["classes"]
        about = About(
            Architecture(**values["architecture"]),
            ClassMap(tuple(names)) if names is not None else None,
            Preprocessing.from_dict(values["preprocessing"]),
            str(values["source_sha256"]),
            str(values["precision"]),
            bool(values["embed_preprocess"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError("its record is malformed") from None
    if about.architecture.activation not in ACTIVATIONS or not all(isinstance(name, str) for name in names or ()):
        raise ValueError("its record is malformed")
    if about.classes is not None and values.get("classes_sha256") != about.classes.fingerprint:
        raise ValueError("its class names do not fit their SHA-256")
    return about
