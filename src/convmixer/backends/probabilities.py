"""Files of others that answer with probabilities where logits are expected: recognised, and turned back."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from convmixer.data.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

# The sum of a thousand probabilities in half precision may be off by as much.
_SUM_TOLERANCE = 1e-2
# The minimum that float32 tells from zero: a probability of zero gets a finite logit, about -103.
_MIN_POSITIVE = float(np.finfo(np.float32).smallest_subnormal)

Undo = Callable[[np.ndarray], np.ndarray]


def random_image(preprocessing: Preprocessing) -> np.ndarray:
    """The same each time, uint8 [1, size, size, channels]: what a file is tried on before its first image."""
    size, channels = preprocessing.size, preprocessing.channels
    return np.random.default_rng(0).integers(0, 256, (1, size, size, channels), np.uint8)


def undo_for(path: str, answers: np.ndarray, last_operator: str | None = None) -> Undo | None:
    """What makes logits of a file's answers, as `answers` [N, classes] to some image show it; None: they are logits.

    `last_operator`: the one that they come from, where that is known. What is undone is logged.
    """
    if last_operator == "Sigmoid":
        logger.info(f"{path}: ends in a Sigmoid, which is undone: log(p / (1 - p)) of its answers are the logits")
        return from_sigmoid
    if answers.shape[1] > 1 and are_probabilities(answers):
        logger.info(f"{path}: answers with probabilities, as of a Softmax; their logarithms are the logits")
        return from_softmax
    return None


def are_probabilities(answers: np.ndarray) -> bool:
    """Whether all rows of answers [N, classes] are non-negative and sum to 1, as those of a softmax."""
    rows = answers.astype(np.float64)
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())


def from_softmax(probabilities: np.ndarray) -> np.ndarray:
    """Logits whose softmax are `probabilities` [N, classes]: the logarithms. NaN stays NaN."""
    values = np.log(np.maximum(probabilities.astype(np.float64), _MIN_POSITIVE))
    return values.astype(np.float32)


def from_sigmoid(probabilities: np.ndarray) -> np.ndarray:
    """Logits whose sigmoid are `probabilities` [N, classes]: log(p / (1 - p)). NaN stays NaN."""
    values = probabilities.astype(np.float64)
    # float32 has no value between 1 - 6e-8 and 1.
    odds = np.log(np.maximum(values, _MIN_POSITIVE)) - np.log(np.maximum(1 - values, np.finfo(np.float32).epsneg / 2))
    return odds.astype(np.float32)
