"""The tables of a report: scores of the classes, confusions, options and what the run ran on, as plain values."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from convmixer.config.resolved import DEFAULT, MODEL_ZOO_DEFAULT
from convmixer.metrics.classification import ClassScores, confused_pairs, confusion_matrix
from convmixer.printable import printable
from convmixer.runs.record import Predictions, RunRecord

_MATRIX = 30  # classes up to which the confusions are a table
_PAIRS = 10
_PICTURE = 600  # pixels of the picture of more


def classes_of(found: Predictions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and images of each class, those with the lowest recall first."""
    scores = ClassScores.of(found.labels, found.predicted, len(classes))
    rows = [
        {
            "name": printable(name),
            "precision": float(scores.precision[i]),
            "recall": float(scores.recall[i]),
            "f1": float(scores.f1[i]),
            "support": int(scores.support[i]),
        }
        for i, name in enumerate(classes)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["recall"]))


def confusions(found: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """The most confused pairs, and the whole matrix: as a table of few classes, as a picture of many."""
    names = [printable(name) for name in classes]
    pairs = [
        {"label": names[label], "predicted": names[other], "images": count}
        for label, other, count in confused_pairs(found.labels, found.predicted, _PAIRS)
    ]
    matrix = confusion_matrix(found.labels, found.predicted, len(names))
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(names) > _MATRIX:
        return {"pairs": pairs, "picture": _picture(share)}
    rows = [
        {"name": name, "cells_": [{"count": int(n), "share": float(part)} for n, part in zip(*row, strict=True)]}
        for name, row in zip(names, zip(matrix, share, strict=True), strict=True)
    ]
    return {"pairs": pairs, "names": names, "rows": rows}


def _picture(share: np.ndarray) -> str:
    """Darker where more of a label's images are answered so; small parts are raised, as a root does."""
    levels = (255 - 255 * np.sqrt(share)).astype(np.uint8)
    image = Image.fromarray(levels)
    how = Image.Resampling.NEAREST if len(levels) <= _PICTURE else Image.Resampling.BOX
    file = io.BytesIO()
    image.resize((_PICTURE, _PICTURE), how).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def options_of_run(record: RunRecord) -> list[dict[str, str]]:
    """The options that are not left at their defaults, with where they came from."""
    return [
        {"name": name, "value": printable(str(value)), "origin": printable(record.origins.get(name, DEFAULT))}
        for name, value in record.options.items()
        if record.origins.get(name, DEFAULT) not in (DEFAULT, MODEL_ZOO_DEFAULT)
    ]


def differing_options(records: Mapping[str, RunRecord]) -> list[dict[str, Any]]:
    """The options in which runs differ, with the value of each."""
    names = dict.fromkeys(name for record in records.values() for name in record.options)
    rows = [{"name": name, "values": [record.options.get(name) for record in records.values()]} for name in names]
    return [
        {"name": row["name"], "values_": [printable(str(value)) for value in row["values"]]}
        for row in rows
        if len({str(value) for value in row["values"]}) > 1 and not str(row["name"]).endswith("_root_dir")
    ]


def facts_of_run(record: RunRecord) -> dict[str, str]:
    """Hardware and versions, a line each."""
    facts = record.facts
    hardware, versions = facts.get("hardware"), facts.get("versions")
    found: dict[str, str] = {}
    if isinstance(hardware, Mapping):
        found |= {str(name): printable(str(value)) for name, value in hardware.items()}
    if isinstance(versions, Mapping):
        found["versions"] = printable(", ".join(f"{name} {value}" for name, value in versions.items()))
    found["processes"] = str(facts.get("processes", 1))
    return found
