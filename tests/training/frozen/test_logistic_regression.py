"""The head as a minimum: against scikit-learn, and the choice of its strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convmixer.training.frozen.logistic_regression import Tried, best_of, fit, held_out, try_strengths


def blobs(count: int, features: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that overlap, of features with other means and scales; the last feature never varies."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    centres = np.random.default_rng(9).normal(size=(3, features))
    values = centres[labels] + random.normal(size=(count, features))
    values = values * np.linspace(0.1, 10, features) + np.linspace(-5, 5, features)
    values[:, -1] = 4.0
    return values.astype(np.float32), labels


@pytest.mark.parametrize("strength", [1.0, 0.01, 0.0001])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_scikit_learns_minimum(strength: float, weighted: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    values, labels = blobs(300)
    weights = np.where(labels == 0, 2.0, 0.5) if weighted else np.ones(300)
    scaled = StandardScaler().fit_transform(values.astype(np.float64))
    # Its C weighs the sum over the images against 1/2 |W|^2.
    theirs = LogisticRegression(C=1 / (strength * 300), tol=1e-8, max_iter=10_000).fit(scaled, labels, weights)
    head = fit(torch.from_numpy(values), torch.from_numpy(labels), 3, strength, torch.from_numpy(weights).float())
    ours = torch.softmax(head.logits(torch.from_numpy(values)), dim=1).numpy()
    assert ours == pytest.approx(theirs.predict_proba(scaled), abs=2e-3)


def test_the_start_does_not_matter() -> None:
    values, labels = (torch.from_numpy(array) for array in blobs(300))
    plain = fit(values, labels, 3, 0.01)
    again = fit(values, labels, 3, 0.01, start=fit(values, labels, 3, 10.0))
    torch.testing.assert_close(plain.logits(values), again.logits(values), atol=5e-3, rtol=1e-3)


def test_a_fifth_of_each_class_is_held_out_by_the_seed() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    is_val = held_out(labels, 0)
    assert [int(is_val[labels == label].sum()) for label in range(4)] == [20, 2, 1, 0]
    assert np.array_equal(is_val, held_out(labels, 0))
    assert not np.array_equal(is_val, held_out(labels, 1))


def test_what_is_tried_is_measured_on_the_other_images() -> None:
    train, val = blobs(60), blobs(500, seed=5)
    of_val = torch.from_numpy(val[0]), torch.from_numpy(val[1])
    tried = try_strengths(torch.from_numpy(train[0]), torch.from_numpy(train[1]), *of_val, 3)
    for one in tried:
        head = fit(torch.from_numpy(train[0]), torch.from_numpy(train[1]), 3, one.strength)
        answers = head.logits(torch.from_numpy(val[0])).argmax(dim=1).numpy()
        assert one.accuracy == pytest.approx(np.mean(answers == val[1]), abs=0.005)
    # Labels that are noise: the weaker the penalty, the worse are the probabilities of images that were not seen.
    random = np.random.default_rng(3)
    noise = [torch.from_numpy(random.integers(0, 3, count)) for count in (60, 500)]
    tried = try_strengths(torch.from_numpy(train[0]), noise[0], torch.from_numpy(val[0]), noise[1], 3)
    assert tried[0].loss < tried[3].loss
    assert tried[0].loss < tried[-1].loss


def test_of_equal_accuracies_the_lower_loss_is_taken() -> None:
    assert best_of([Tried(1.0, 0.8, 0.9), Tried(0.1, 0.9, 0.5), Tried(0.01, 0.9, 0.4), Tried(0.001, 0.7, 0.1)]) == 0.01
