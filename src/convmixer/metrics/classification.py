"""What the answers to labelled images tell of a classifier: by class, of its confusions, of its confidence.

Labels and predictions are int [n] below the number of classes; a prediction of -1 is no answer, and wrong. The numbers
are those of scikit-learn with `zero_division=0`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class ClassScores:
    """By class, each [classes]: `precision`, of its predictions those that are right; `recall`, of its images those
    that are found; `f1`, their harmonic mean; `support`, its images. 0 where there is nothing to divide by."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    _predicted: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> ClassScores:
        hits = np.bincount(labels[labels == predicted], minlength=classes).astype(np.float64)
        support = np.bincount(labels, minlength=classes)
        predictions = np.bincount(predicted[predicted >= 0], minlength=classes)
        precision, recall = hits / np.maximum(predictions, 1), hits / np.maximum(support, 1)
        f1 = 2 * hits / np.maximum(support + predictions, 1)
        return cls(precision, recall, f1, support, predictions)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images."""
        return _mean(self.recall[self.support > 0])

    @property
    def macro(self) -> tuple[float, float, float]:
        """Means of precision, recall and F1 over the classes that have images or predictions."""
        seen = (self.support > 0) | (self._predicted > 0)
        return _mean(self.precision[seen]), _mean(self.recall[seen]), _mean(self.f1[seen])


@dataclass(frozen=True)
class Calibration:
    """Answers in bins of equal width by probability: how many, their mean probability, and the fraction that is right.

    `error`: the expected calibration error, the mean over all answers of the distance of these two, 0 to 1
    (https://arxiv.org/abs/1706.04599).
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @classmethod
    def of(cls, probability: np.ndarray, is_right: np.ndarray, bins: int = BINS) -> Calibration:
        """`probability` [n] of each answer and whether it is right; those that are no number are left out."""
        known = np.isfinite(probability)
        probability, right = probability[known].astype(np.float64), np.asarray(is_right)[known]
        place = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
        counts = np.bincount(place, minlength=bins)
        sums = (np.bincount(place, weights, bins) for weights in (probability, right))
        confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
        return cls(counts, confidence, accuracy)

    @property
    def error(self) -> float:
        gap = np.abs(self.accuracy - self.confidence)
        return float((gap * self.counts).sum() / max(int(self.counts.sum()), 1))


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Images of each label (rows) that were answered with each class (columns), int64 [classes, classes]."""
    answered = predicted >= 0
    pairs = labels[answered].astype(np.int64) * classes + predicted[answered]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confused_pairs(labels: np.ndarray, predicted: np.ndarray, limit: int | None = None) -> list[tuple[int, int, int]]:
    """(label, the class that was answered, images), the most frequent mistakes first; it makes no matrix."""
    wrong = (predicted >= 0) & (predicted != labels)
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
