"""The evaluation loop: exact at any number of images and processes, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import ArraySource
from convmixer.evaluation import evaluate
from convmixer.metrics.score import Score

PREPROCESSING = Preprocessing(size=2, crop_pct=1.0, mean=(0.5,), std=(0.5,))
CLASSES = ClassMap(tuple("abcdefg"))


class ReadsTheFirstPixel:
    """Its logits favour the class that the first pixel of an image says, then the next ones."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        predicted = images[:, 0, 0, 0].astype(np.int64)
        distance = (np.arange(len(CLASSES))[None, :] - predicted[:, None]) % len(CLASSES)
        return -distance.astype(np.float32)


def source_of(predicted: list[int], labels: list[int]) -> ArraySource:
    pixels = np.repeat(np.array(predicted, np.uint8), 4).reshape(-1, 2, 2, 1)
    return ArraySource(pixels, np.array(labels), CLASSES, "test")


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", range(1, 18))
def test_each_image_counts_once(count: int, processes: int) -> None:
    draw = np.random.default_rng(count)
    predicted, labels = draw.integers(0, 7, count).tolist(), draw.integers(0, 7, count).tolist()
    source = source_of(predicted, labels)
    parts = [
        evaluate(ReadsTheFirstPixel(), source, PREPROCESSING, batch_size=4, threads=0, part=(rank, processes))
        for rank in range(processes)
    ]
    score = Score.merged(parts)
    ranks = [(label - s) % 7 for s, label in zip(predicted, labels, strict=True)]
    assert score.count == count
    assert score.top1 == sum(rank < 1 for rank in ranks)
    assert score.top5 == sum(rank < 5 for rank in ranks)
    # -log softmax of logits 0, -1 ... -6 at the label's rank.
    log_sum = np.log(np.exp(-np.arange(7.0)).sum())
    assert score.loss_sum == pytest.approx(sum(rank + log_sum for rank in ranks))


def test_results_by_hand() -> None:
    score = Score()
    score.add(np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]], np.float32), np.array([0, 1, 0]))
    # log(1 + e^-2), log 2 and log(1 + e^3); equal logits answer the first class; two classes are always among five.
    assert score.results() == {"Loss": 1.2896, "Top1-Acc": 0.333333, "Top5-Acc": 1.0}


def test_logits_that_are_no_numbers_are_never_right() -> None:
    score = Score()
    score.add(np.full((3, 8), np.nan, np.float32), np.array([0, 3, 7]))
    assert (score.top1, score.top5, score.count) == (0, 0, 3)
