"""Metrics by class, confusion and calibration: scikit-learn's numbers, and calibration by hand."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from convmixer.data.classes import ClassMap
from convmixer.data.source import ArraySource
from convmixer.metrics.classification import Calibration, ClassScores, confused_pairs, confusion_matrix
from convmixer.metrics.score import Score, softmax
from convmixer.metrics.tables import COLUMNS, answers_as_csv, class_table, record


@pytest.mark.parametrize("seed", range(5))
def test_scores_by_class_are_those_of_scikit_learn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    # Class 5 has no images and class 6 neither images nor predictions.
    labels, predicted = draw.integers(0, 5, 60), draw.integers(0, 6, 60)
    scores = ClassScores.of(labels, predicted, 7)
    expected = sklearn_metrics.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    for found, values in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(found, values)
    macro = sklearn_metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    np.testing.assert_allclose(scores.macro, macro[:3])
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = sklearn_metrics.balanced_accuracy_score(labels, predicted)
    assert scores.balanced_accuracy == pytest.approx(balanced)
    matrix = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 7), matrix)
    pairs = confused_pairs(labels, predicted)
    np.fill_diagonal(matrix, 0)
    assert sum(count for _, _, count in pairs) == matrix.sum()
    assert [count for _, _, count in pairs] == sorted(matrix[matrix > 0].tolist(), reverse=True)
    assert all(matrix[label, other] == count for label, other, count in pairs)


def test_no_answer_is_a_wrong_one() -> None:
    scores = ClassScores.of(np.array([0, 0, 1]), np.array([0, -1, 1]), 2)
    assert scores.recall.tolist() == [0.5, 1.0]
    assert confusion_matrix(np.array([0, 0, 1]), np.array([0, -1, 1]), 2).tolist() == [[1, 0], [0, 1]]


def test_calibration_by_hand() -> None:
    # Two bins: 0.3 and 0.5, half of them right; 0.9, 0.9 and 1.0, two of three right.
    found = Calibration.of(np.array([0.3, 0.5, 0.9, 0.9, 1.0, np.nan]), np.array([1, 0, 1, 0, 1, 0], bool), bins=2)
    assert found.counts.tolist() == [2, 3]
    np.testing.assert_allclose(found.confidence, [0.4, 2.8 / 3])
    np.testing.assert_allclose(found.accuracy, [0.5, 2 / 3])
    assert found.error == pytest.approx((2 * 0.1 + 3 * (2.8 / 3 - 2 / 3)) / 5)


def scored(names: tuple[str, ...]) -> tuple[Score, ArraySource, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    logits, labels = draw.normal(size=(30, len(names))).astype(np.float32), draw.integers(0, len(names), 30)
    source = ArraySource(np.zeros((30, 2, 2, 1), np.uint8), labels, ClassMap(names), "set/val")
    score = Score.merged([Score(), Score()])
    score.add(logits[20:], labels[20:], np.arange(20, 30))
    score.add(logits[:20], labels[:20], np.arange(20))
    return score, source, logits, labels


def test_the_answer_to_each_image_is_kept() -> None:
    score, source, logits, labels = scored(("a", "b", "c"))
    probabilities, answers = softmax(logits), score.answers()
    assert answers["index"].tolist() == list(range(30))
    np.testing.assert_array_equal(answers["predicted"], probabilities.argmax(axis=1))
    np.testing.assert_allclose(answers["probability"], probabilities.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(answers["label_probability"], probabilities[np.arange(30), labels], rtol=1e-6)
    rows = list(csv.DictReader(io.StringIO(answers_as_csv(score, source).decode())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == [f"set/val/{i}" for i in range(30)]
    assert [row["label"] for row in rows] == ["abc"[label] for label in labels]


@pytest.mark.parametrize(("names", "has_top5"), [(tuple("abcde"), False), (tuple("abcdef"), True)])
def test_the_record_leaves_out_a_top5_that_says_nothing(names: tuple[str, ...], has_top5: bool) -> None:
    score, source, logits, labels = scored(names)
    found = json.loads(json.dumps(record(score, source)))
    assert ("top5" in found) == has_top5
    assert found["top1"] == pytest.approx(np.mean(logits.argmax(axis=1) == labels), abs=1e-6)
    assert [each["name"] for each in found["classes"]] == list(names)
    assert np.trace(found["confusion_matrix"]) == score.top1
    assert sum(each["images"] for each in found["calibration"]) == 30


def test_names_are_escaped_for_a_terminal() -> None:
    score, source, _, _ = scored(("a", "b\n\x1b[31m", "c"))
    assert all("\x1b" not in line and "\n" not in line for line in class_table(score, source.classes.names))


def test_a_path_keeps_its_bytes() -> None:
    score, source, _, _ = scored(("a", "b"))
    odd = ArraySource(source.pixels, source.labels, source.classes, "/data/\udcff")
    assert b"\n\xff/3," in answers_as_csv(score, odd, "/data")
