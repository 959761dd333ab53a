"""`--filter_init covariance`: filters of the covariance that it says, in the variance of torch's, and nothing else."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Train

from convmixer.arch import Architecture
from convmixer.model import ConvMixer
from convmixer.training.filter_init import draw_filters

SMOOTH, REACH = 1.0, 1.5


def covariance_by_hand(size: int) -> list[list[float]]:
    """The formula, place by place, before it is scaled."""
    middle = (size - 1) / 2
    places = [(row - middle, column - middle) for row in range(size) for column in range(size)]

    def reach(place: tuple[float, float]) -> float:
        return math.exp(-(place[0] ** 2 + place[1] ** 2) / (2 * REACH**2))

    return [
        [math.exp(-((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2) / (2 * SMOOTH**2)) * reach(p) * reach(q) for q in places]
        for p in places
    ]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_filters_have_the_covariance_of_the_formula(size: int) -> None:
    torch.manual_seed(0)
    model = ConvMixer(Architecture(20_000, 1, size, 2, "gelu", 2, 3))
    plain = model.blocks[0].depthwise.weight.detach().clone()  # type: ignore[index, union-attr, operator]
    draw_filters(model)
    drawn = model.blocks[0].depthwise.weight.detach().double().view(20_000, -1)  # type: ignore[index, union-attr, operator]
    wanted = torch.tensor(covariance_by_hand(size), dtype=torch.float64)
    wanted *= size**2 / wanted.trace() / (3 * size**2)
    # Of 20,000 draws a covariance is known to about 1 % of the largest variance.
    torch.testing.assert_close(drawn.T @ drawn / 20_000, wanted, rtol=0, atol=0.04 * wanted.max().item())
    assert drawn.mean().abs() < 0.01 * drawn.std()
    assert drawn.var().item() == pytest.approx(plain.var().item(), rel=0.03)


@pytest.mark.parametrize("size", [9, 15, 31])
def test_large_filters_are_finite(size: int) -> None:
    model = ConvMixer(Architecture(8, 1, size, 2, "gelu", 2, 3))
    draw_filters(model)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def weights_after(train: Train, *words: object) -> dict[str, torch.Tensor]:
    """Of a run that learns nothing."""
    run = train("--base_lr=1e-30", "--weight_decay=0", *words, epochs=1)
    found = load_file(run.best / "best.safetensors")
    shutil.rmtree("runs")
    return found


def test_a_run_begins_with_them_by_its_seed_and_all_else_as_before(train: Train) -> None:
    plain = weights_after(train)
    one, again = (weights_after(train, "--filter_init=covariance") for _ in range(2))
    other = weights_after(train, "--filter_init=covariance", "--seed=1")
    changed = {name for name in plain if name.endswith("weight") and not torch.equal(plain[name], one[name])}
    assert changed == {"blocks.0.depthwise.weight", "blocks.1.depthwise.weight"}
    assert all(torch.equal(one[name], again[name]) for name in changed)
    assert not any(torch.equal(one[name], other[name]) for name in changed)


def test_weights_that_are_given_hold(train: Train, weights: Path) -> None:
    found, before = weights_after(train, "--filter_init=covariance", "--pretrained", weights), load_file(weights)
    assert torch.equal(found["blocks.0.depthwise.weight"], before["blocks.0.depthwise.weight"])
