"""Whether more epochs would help, by the curves of training and evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from convmixer.report.verdict import sentences

FLAT = [{"epoch": i, "Top1-Acc": 0.7, "Loss": 0.9} for i in range(6)]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0, 1.0, 0.8, 0.8, 0.7, 0.7], "The training loss still fell at the end"),  # by an eighth
        ([1.0, 1.0, 0.8, 0.8, 0.79, 0.79], "Accuracy hardly rose"),  # by a hundredth
        ([1.0, 0.5], "Accuracy hardly rose"),  # too few lines to say
    ],
)
def test_training_that_goes_on_without_gain(losses: list[float], said: str) -> None:
    train = [{"epoch": i, "loss": float(loss)} for i, loss in enumerate(np.array(losses))]
    assert sentences(FLAT, None, (), train)[0].startswith(said)
