"""The arithmetic of a range test, against numbers by hand and curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from convmixer.planning.learning_rate import LAG, Curve, exponential, has_exploded, smoothed


def test_rates_rise_by_one_factor() -> None:
    np.testing.assert_allclose(exponential(1e-6, 1.0, 4), [1e-6, 1e-4, 1e-2, 1.0])


def test_the_smoothed_loss_by_hand() -> None:
    # s: 0.1 * 2 = 0.2, 0.9 * 0.2 + 0.1 * 4 = 0.58, 0.9 * 0.58 + 0.1 * 1 = 0.622; 1 - 0.9^t: 0.1, 0.19, 0.271.
    np.testing.assert_allclose(smoothed([2.0, 4.0, 1.0]), [2.0, 0.58 / 0.19, 0.622 / 0.271])


def test_a_constant_loss_stays_what_it_is() -> None:
    np.testing.assert_allclose(smoothed([3.0] * 40), 3.0)


def test_an_explosion_is_four_times_the_lowest() -> None:
    assert not has_exploded([1.0] * 50 + [1.5] * 20)
    assert has_exploded([1.0] * 50 + [30.0] * 5)


@pytest.mark.parametrize(("steep", "low"), [(50, 70), (30, 60), (60, 64)])
def test_the_marks_of_a_known_curve(steep: int, low: int) -> None:
    """A loss that is level, falls in a straight line around `steep`, is level, and rises from `low` on."""
    steps = np.arange(100)
    fall = np.clip((steps - (steep - 3)) / 6, 0, 1)
    losses = 2.3 - 1.5 * fall - 0.001 * np.minimum(steps, low) + 0.1 * np.maximum(steps - low, 0)
    rates = exponential(1e-6, 1.0, 100)
    curve = Curve.of(rates, losses.tolist())
    assert len(curve.trend) == 100 - LAG
    assert abs(int(np.searchsorted(rates, curve.steepest)) - steep) <= 10
    assert curve.steepest <= curve.suggestion <= curve.lowest
    assert curve.suggestion == pytest.approx(np.sqrt(curve.steepest * curve.lowest))
