"""A score as others read it: the whole of it as one record for JSON, and the answer to each image as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from convmixer.data.paths import start_of_names
from convmixer.data.source import Source
from convmixer.metrics.classification import Calibration, ClassScores, confused_pairs, confusion_matrix
from convmixer.metrics.score import Score
from convmixer.printable import printable

PREDICTIONS = "predictions.csv"
COLUMNS = ("path", "label", "predicted", "probability", "label_probability")
FEW_CLASSES = 5  # with which top-5 says nothing
_MATRIX_CLASSES = 200  # up to which the record has the whole confusion matrix
_PAIRS = 1000  # of the most frequent mistakes, which it always has
_DIGITS = 6


def summary(score: Score, classes: int) -> dict[str, float]:
    """Balanced accuracy, macro F1 and the calibration error of a score, 0 to 1."""
    answers = score.answers()
    by_class = ClassScores.of(answers["label"], answers["predicted"], classes)
    calibration = Calibration.of(answers["probability"], answers["label"] == answers["predicted"])
    values = {
        "balanced_accuracy": by_class.balanced_accuracy,
        "macro_f1": by_class.macro[2],
        "calibration_error": calibration.error,
    }
    return {name: round(value, _DIGITS) for name, value in values.items()}


def record(score: Score, source: Source) -> dict[str, Any]:
    """All of it, as plain values. Top-5 is left out where five classes or fewer make it say nothing."""
    names, answers = source.classes.names, score.answers()
    labels, predicted = answers["label"], answers["predicted"]
    by_class = ClassScores.of(labels, predicted, len(names))
    precision, recall, f1 = (round(value, _DIGITS) for value in by_class.macro)
    means = score.results()
    found: dict[str, Any] = {"images": score.count, "loss": means["Loss"], "top1": means["Top1-Acc"]}
    if len(names) > FEW_CLASSES:
        found["top5"] = means["Top5-Acc"]
    found |= summary(score, len(names)) | {"macro_precision": precision, "macro_recall": recall, "macro_f1": f1}
    found["classes"] = [
        {
            "name": name,
            "precision": round(float(by_class.precision[i]), _DIGITS),
            "recall": round(float(by_class.recall[i]), _DIGITS),
            "f1": round(float(by_class.f1[i]), _DIGITS),
            "support": int(by_class.support[i]),
        }
        for i, name in enumerate(names)
    ]
    found["confused"] = [
        {"label": names[label], "predicted": names[other], "images": count}
        for label, other, count in confused_pairs(labels, predicted, _PAIRS)
    ]
    if len(names) <= _MATRIX_CLASSES:
        found["confusion_matrix"] = confusion_matrix(labels, predicted, len(names)).tolist()
    calibration = Calibration.of(answers["probability"], labels == predicted)
    found["calibration"] = [
        {"images": int(count), "probability": round(float(sure), _DIGITS), "accuracy": round(float(right), _DIGITS)}
        for count, sure, right in zip(calibration.counts, calibration.confidence, calibration.accuracy, strict=True)
    ]
    found["unreadable"] = [{"path": source.name(index), "reason": reason} for index, reason in sorted(score.bad)]
    return found


def answers_as_csv(score: Score, source: Source, folder: str | None = None) -> bytes:
    """A line per image that could be read, under `COLUMNS`, classes by their names, paths below `folder` from there on.

    A prediction is empty where the model answered with what is no number. Names of files keep their bytes.
    """
    file = io.StringIO()
    start = start_of_names(folder)
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in answer_rows(score, source):
        writer.writerow(
            {name: f"{v:.6g}" if isinstance(v, float) else v.removeprefix(start) for name, v in row.items()}
        )
    return file.getvalue().encode("utf-8", "surrogateescape")


def answer_rows(score: Score, source: Source) -> Iterator[dict[str, Any]]:
    """The answer to each image that could be read, by `COLUMNS`; the prediction may be empty, as in the CSV."""
    names = source.classes.names
    for answer in score.answers():
        predicted = int(answer["predicted"])
        yield {
            "path": source.name(int(answer["index"])),
            "label": names[int(answer["label"])],
            "predicted": "" if predicted < 0 else names[predicted],
            "probability": float(answer["probability"]),
            "label_probability": float(answer["label_probability"]),
        }


def class_table(score: Score, classes: tuple[str, ...], limit: int = 20) -> list[str]:
    """Lines for people: precision, recall, F1 and images of each class, those with the lowest recall first."""
    answers = score.answers()
    by_class = ClassScores.of(answers["label"], answers["predicted"], len(classes))
    order = np.argsort(by_class.recall, kind="stable")
    order = order[by_class.support[order] > 0]
    width = max([5, *(len(printable(classes[i])) for i in order[:limit])])
    lines = [f"{'class':<{width}}  precision  recall     F1  images"]
    lines += [
        f"{printable(classes[i]):<{width}}  {by_class.precision[i]:9.3f}  {by_class.recall[i]:6.3f}  "
        f"{by_class.f1[i]:5.3f}  {by_class.support[i]:6d}"
        for i in order[:limit]
    ]
    if len(order) > limit:
        lines.append(f"and {len(order) - limit} classes with higher recall; --json has all")
    return lines
