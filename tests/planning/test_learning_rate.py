"""The arithmetic of a range test, against numbers by hand and curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from convmixer.planning.learning_rate import Curve, exponential, has_exploded, running_mean


def test_rates_rise_by_one_factor() -> None:
    np.testing.assert_allclose(exponential(1e-6, 1.0, 4), [1e-6, 1e-4, 1e-2, 1.0])


def test_the_running_mean_by_hand() -> None:
    # s: 0.1 * 2 = 0.2, 0.9 * 0.2 + 0.1 * 4 = 0.58, 0.9 * 0.58 + 0.1 * 1 = 0.622; 1 - 0.9^t: 0.1, 0.19, 0.271.
    np.testing.assert_allclose(running_mean([2.0, 4.0, 1.0]), [2.0, 0.58 / 0.19, 0.622 / 0.271])


def test_an_explosion_is_four_times_the_lowest() -> None:
    assert not has_exploded([1.0] * 50 + [1.5] * 20)
    assert has_exploded([1.0] * 50 + [30.0] * 5)


def test_the_trend_by_hand() -> None:
    # Weights of a neighbour at a factor e ** 0.5, one width away, are exp(-1/2), at two widths exp(-2).
    near, far = np.exp(-0.5), np.exp(-2.0)
    curve = Curve.of(np.exp([0.0, 0.5, 1.0]), [3.0, 2.0, 1.0])
    expected = [
        (3 + 2 * near + far) / (1 + near + far),
        (3 * near + 2 + near) / (1 + 2 * near),
        (3 * far + 2 * near + 1) / (1 + near + far),
    ]
    np.testing.assert_allclose(curve.trend, expected)


def noisy(low: int, seed: int) -> Curve:
    """A loss that falls up to the step `low` of 100 and rises after it, ever faster, with noise as of small batches."""
    steps, noise = np.arange(100), np.random.default_rng(seed).normal(0, 0.08, 100)
    losses = 2.3 - 1.5 * np.clip(steps / low, 0, 1) ** 2 + 0.05 * np.maximum(steps - low, 0) ** 1.5 + noise
    return Curve.of(exponential(1e-5, 1.0, 100), losses.tolist())


@pytest.mark.parametrize("low", [50, 70, 85])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_lowest_point_of_a_known_curve(low: int, seed: int) -> None:
    curve = noisy(low, seed)
    # Within a factor of two, which are six of these steps; noise alone moves the lowest single loss further.
    assert curve.rates[low] / 2 < curve.suggestion < curve.rates[low] * 2
    assert not curve.falls_to_the_end


def test_a_single_loss_that_explodes_lifts_nothing_beside_it() -> None:
    rates = exponential(1e-5, 1.0, 100)
    losses = np.concatenate([np.linspace(2.0, 1.0, 99), [1e9]])
    quiet = Curve.of(rates, [*losses[:99], 2.0])
    np.testing.assert_array_equal(Curve.of(rates, losses.tolist()).trend, quiet.trend)


def test_a_loss_that_falls_to_the_end_is_told() -> None:
    assert Curve.of(exponential(1e-5, 1.0, 100), np.linspace(2.0, 1.0, 100).tolist()).falls_to_the_end
