"""A prediction as a line to be read, and as one record, the same in every file and in what is served."""

from __future__ import annotations

from typing import Any

from convmixer.prediction import Prediction
from convmixer.printable import printable

UNSURE = "unsure"


def line_of(prediction: Prediction, *, full: bool) -> str:
    """`PATH (class: 293)`, or with `full` the names and probabilities of the top classes; `unsure` where it is."""
    path = printable(prediction.path)
    if not full:
        return f"{path} (class: {UNSURE if prediction.unsure else prediction.index})"
    answers = ", ".join(f"{printable(each.name)} {each.probability:.4f}" for each in prediction.topk)
    return f"{path} ({UNSURE}: {answers})" if prediction.unsure else f"{path} ({answers})"


def record_of(prediction: Prediction) -> dict[str, Any]:
    """Plain values: `path`, and `error` where there is no answer, else `index`, `name`, `probability` and `topk`.

    Where they were asked for also `unsure` (true) and `embedding`, the feature vector.
    """
    if prediction.error is not None:
        return {"path": prediction.path, "error": prediction.error}
    topk = [{"index": each.index, "name": each.name, "probability": each.probability} for each in prediction.topk]
    record: dict[str, Any] = {"path": prediction.path, **topk[0], "topk": topk}
    if prediction.unsure:
        record["unsure"] = True
    if prediction.embedding is not None:
        record["embedding"] = [float(value) for value in prediction.embedding]
    return record
