"""What a run's numbers say in words, by rules that docs/report.md states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convmixer.metrics.classification import Calibration, ClassScores, confused_pairs
from convmixer.printable import printable
from convmixer.report.curves import is_one_pass
from convmixer.runs.record import Predictions

_RISING = 0.005  # of accuracy gained in the last third of the evaluations: more epochs would gain more
_FALLING = 0.05  # part of the training loss that the last third of its lines is below the third before: it still falls
_OVERFIT = 1.1  # times the lowest evaluation loss that the last one is
_FEW = 5  # images of a class below which its recall says little
_CALIBRATED = 0.05


def sentences(
    evaluated: Sequence[Mapping[str, Any]],
    found: Predictions | None,
    classes: Sequence[str],
    train: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Sentences on the whole: how good, what fails, whether more epochs would help, whether probabilities hold."""
    said = []
    if found is not None and len(found):
        right = int((found.labels == found.predicted).sum())
        said.append(f"{right:,} of {len(found):,} evaluation images are answered right: {right / len(found):.1%}.")
        said += _classes(found, classes)
    said += _epochs(train, evaluated)
    if found is not None and len(found):
        said.append(_confidence(found))
    return said


def _classes(found: Predictions, classes: Sequence[str]) -> list[str]:
    scores = ClassScores.of(found.labels, found.predicted, len(classes))
    enough = np.flatnonzero(scores.support >= _FEW)
    if len(enough) < 2:
        return []
    worst = int(enough[np.argmin(scores.recall[enough])])
    if scores.recall[worst] >= 1.0:
        return ["Every class is found whole."]
    line = (
        f"{printable(classes[worst])} is found least often: {scores.recall[worst]:.0%} of its "
        f"{scores.support[worst]:,} images."
    )
    pairs = [(other, count) for label, other, count in confused_pairs(found.labels, found.predicted) if label == worst]
    if pairs:
        line += f" It is most often taken for {printable(classes[pairs[0][0]])} ({pairs[0][1]:,} times)."
    return [line]


def _epochs(train: Sequence[Mapping[str, Any]], evaluated: Sequence[Mapping[str, Any]]) -> list[str]:
    top1 = [line["Top1-Acc"] for line in evaluated if isinstance(line.get("Top1-Acc"), float | int)]
    loss = [line["Loss"] for line in evaluated if isinstance(line.get("Loss"), float | int)]
    if not top1 or is_one_pass(train, evaluated):
        return []
    if len(top1) < 3:
        return ["There are too few evaluations to say whether more epochs would help; --eval_every 1 makes more."]
    tail = max(len(top1) // 3, 1)
    gained = max(top1[-tail:]) - max(top1[:-tail])
    if len(loss) >= 3 and loss[-1] > _OVERFIT * min(loss) and max(top1) > top1[-1]:
        return [
            "The evaluation loss rose again after its lowest point while training went on: the network overfits. Fewer "
            "epochs, stronger augmentation (--auto_augment, --mixup) or more images would help; more epochs would not."
        ]
    if gained > _RISING:
        return [
            f"Accuracy still rose by {gained * 100:.1f} points in the last third of the evaluations: more epochs would "
            "probably help."
        ]
    if _still_falls(train):
        return [
            "The training loss still fell at the end while accuracy hardly rose: more epochs of the same would mostly "
            "be learnt by heart; stronger augmentation or more images would help more."
        ]
    return ["Accuracy hardly rose in the last third of the evaluations: more epochs of the same would change little."]


def _still_falls(train: Sequence[Mapping[str, Any]]) -> bool:
    loss = [line["loss"] for line in train if isinstance(line.get("loss"), float | int)]
    third = len(loss) // 3
    if not third:
        return False
    return bool(np.mean(loss[-third:]) < (1 - _FALLING) * np.mean(loss[-2 * third : -third]))


def _confidence(found: Predictions) -> str:
    is_right = found.labels == found.predicted
    calibration = Calibration.of(found.probability, is_right)
    if calibration.error <= _CALIBRATED:
        return f"Probabilities can be taken at their word (calibration error {calibration.error:.1%})."
    sure = "too sure of itself" if np.nanmean(found.probability) > is_right.mean() else "surer than it says"
    return f"The network is {sure}: probabilities are {calibration.error:.1%} off on average."
