"""The comparison's numbers, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from convmixer.exporters.parity import compare, table


class Fixed:
    """Answers each image with a row that it was given."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = np.array(rows, np.float32)

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.rows[images[:, 0, 0, 0]]


# The first pixel of an image is its number.
BATCHES = [np.array([0, 1], np.uint8).reshape(2, 1, 1, 1), np.array([2], np.uint8).reshape(1, 1, 1, 1)]
WEIGHTS = Fixed([[1, 2], [3, -10], [0, 1]])


def test_difference_and_agreement() -> None:
    parity = compare(WEIGHTS, Fixed([[1, 2], [3, -9.5], [1.25, 1]]), BATCHES)
    assert parity.images == 3
    assert parity.difference == pytest.approx(0.125)  # 1.25 of a largest logit of 10 (its sign does not count)
    assert parity.agreement == pytest.approx(2 / 3)
    assert parity.weights_rate > 0
    assert parity.exported_rate > 0
    assert parity.within(0.125)
    assert not parity.within(0.1249)


def test_the_same_answers() -> None:
    parity = compare(WEIGHTS, WEIGHTS, BATCHES)
    assert (parity.difference, parity.agreement) == (0, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_no_numbers_never_pass(value: float) -> None:
    parity = compare(WEIGHTS, Fixed([[1, 2], [3, -10], [0, value]]), BATCHES)
    assert not parity.within(1e9)
    assert parity.to_dict()["difference"] is None


def test_weights_that_are_no_numbers_never_pass() -> None:
    broken = Fixed([[1, 2], [3, -10], [0, float("nan")]])
    assert not compare(broken, broken, BATCHES).within(1e9)


def test_the_table_shows_the_limit() -> None:
    text = table("m.onnx", compare(WEIGHTS, Fixed([[1, 2], [3, -9.5], [0, 1]]), BATCHES), 1e-5)
    assert "0.05 (allowed 1e-05)" in text
    assert "100.00%" in text


def test_right_answers_where_the_labels_are_known() -> None:
    exported = Fixed([[1, 2], [3, -9.5], [1.25, 1]])
    parity = compare(WEIGHTS, exported, BATCHES, np.array([1, 1, 1]))
    assert parity.weights_top1 == pytest.approx(2 / 3)
    assert parity.exported_top1 == pytest.approx(1 / 3)
    assert parity.lost == pytest.approx(1 / 3)
    assert "right top-1 class" in table("m", parity, 1)
    unknown = compare(WEIGHTS, exported, BATCHES)
    assert (unknown.lost, unknown.to_dict()["weights_top1"]) == (0, None)
    assert "right" not in table("m", unknown, 1)
