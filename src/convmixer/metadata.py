"""What a model file says of itself: one JSON record, in the file, or beside one without a place for it (MINDIR, AIR).

Format 2 is the same in all of them. Format 1 had two forms, one of weight files and one of exported files; both are
still read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from convmixer.arch import ACTIVATIONS, Architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing

KEY = "convmixer"
FORMAT = 2

# SHA-256, as hexadecimal digits, of a record's values (without it) and of whatever it seals beside them.
Seal = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class ModelMetadata:
    """The network, its classes and its input, None where they are not known, and further plain values (`extra`).

    Of exported files only: `source_sha256`, that of the weight file; `precision`, fp32, fp16 or int8; and
    `embed_preprocess`: the graph resizes, crops and normalises itself.
    """

    architecture: Architecture
    classes: ClassMap | None = None
    preprocessing: Preprocessing | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str | None = None
    precision: str = "fp32"
    embed_preprocess: bool = False

    @property
    def known_preprocessing(self) -> Preprocessing:
        """That of an exported model, which always has one."""
        assert self.preprocessing is not None
        return self.preprocessing


def seal_alone(values: Mapping[str, Any]) -> str:
    """The seal of a record whose model is not sealed with it."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def encode_metadata(metadata: ModelMetadata, seal: Seal = seal_alone) -> str:
    """The record as JSON."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "arch": metadata.architecture.name,
        "architecture": asdict(metadata.architecture),
        "classes": list(metadata.classes.names) if metadata.classes else None,
        "preprocessing": metadata.preprocessing.to_dict() if metadata.preprocessing else None,
        "extra": dict(metadata.extra),
        "source_sha256": metadata.source_sha256,
        "precision": metadata.precision,
        "embed_preprocess": metadata.embed_preprocess,
    }
    return json.dumps({**values, "sha256": seal(values)})


def decode_metadata(text: str, seal: Seal = seal_alone) -> ModelMetadata:
    """What `encode_metadata` wrote, now or in format 1. Raises ValueError for what is malformed or not sealed so."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("its record is malformed") from None
    if not isinstance(values, dict) or values.get("format") not in (1, FORMAT):
        raise ValueError(f"its record is not of format {FORMAT}; a newer convmixer may have written it")
    # In format 1 exported files sealed the names of the classes only.
    is_old_export = values["format"] == 1 and "architecture" in values
    sealed = values.pop("sha256", None)
    if not is_old_export and sealed != seal(values):
        raise ValueError("its SHA-256 does not fit its content")
    try:
        metadata = _from_values(values)
    except (KeyError, TypeError, ValueError):
        raise ValueError("its record is malformed") from None
    if is_old_export and metadata.classes and values.get("classes_sha256") != metadata.classes.fingerprint:
        raise ValueError("its class names do not fit their SHA-256")
    return metadata


def _from_values(values: Mapping[str, Any]) -> ModelMetadata:
    """Raises KeyError, TypeError or ValueError for what is not there or of another type."""
    shape = values["architecture"] if "architecture" in values else values["arch"]
    names, preprocessing, source = values["classes"], values["preprocessing"], values.get("source_sha256")
    metadata = ModelMetadata(
        Architecture(**shape),
        ClassMap(tuple(names)) if names is not None else None,
        Preprocessing.from_dict(preprocessing) if preprocessing is not None else None,
        dict(values.get("extra", {})),
        None if source is None else str(source),
        str(values.get("precision", "fp32")),
        bool(values.get("embed_preprocess", False)),
    )
    if metadata.embed_preprocess and metadata.preprocessing is None:
        raise ValueError("it has a preprocessing that it does not give")
    if metadata.architecture.activation not in ACTIVATIONS or not all(isinstance(name, str) for name in names or ()):
        raise ValueError("an activation or a name is of another type")
    return metadata
