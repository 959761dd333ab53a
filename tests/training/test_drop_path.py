"""Stochastic depth: the rates by hand, what a branch that is left out means, and runs that have it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from tests.conftest import Command, ToyOptions, Train

from convmixer.arch import architecture
from convmixer.model import ConvMixer
from convmixer.training.network import drop_path_factors


def network(depth: int = 3) -> ConvMixer:
    torch.manual_seed(0)
    return ConvMixer(architecture(f"convmixer_8_{depth}", kernel_size=3, patch_size=2, num_classes=3))


def test_the_rate_grows_with_depth_and_the_mean_stays() -> None:
    factors = drop_path_factors(0.4, 4, 20000, 0, 7, 0, 0)
    # Block l of 4 with 0.4 * l / 4; what is kept counts 1 / (1 - p) times.
    for row, rate in zip(factors, (0.1, 0.2, 0.3, 0.4), strict=True):
        assert set(np.unique(row)) == {np.float32(0), np.float32(1 / (1 - rate))}
        assert np.mean(row == 0) == pytest.approx(rate, abs=0.015)
        assert row.mean() == pytest.approx(1, abs=0.02)
    # Each image has draws of its own, in each block: two blocks drop together as often as chance has it.
    assert np.mean((factors[2] == 0) & (factors[3] == 0)) == pytest.approx(0.3 * 0.4, abs=0.01)


def test_the_draws_are_a_function_of_seed_step_part_and_process() -> None:
    first = drop_path_factors(0.5, 3, 64, 0, 7, 1, 0)
    assert np.array_equal(first, drop_path_factors(0.5, 3, 64, 0, 7, 1, 0))
    for counters in ((1, 7, 1, 0), (0, 8, 1, 0), (0, 7, 0, 0), (0, 7, 1, 1)):
        assert not np.array_equal(first, drop_path_factors(0.5, 3, 64, *counters))


def test_a_branch_that_is_left_out_is_none_for_that_image() -> None:
    model, images = network().eval(), torch.randn(4, 3, 8, 8)
    keep = torch.ones(3, 4)
    assert torch.equal(model(images, keep), model(images))
    keep[1, 2] = 0.0
    dropped = model(images, keep)
    # A BatchNorm of zeros is a branch of zeros.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("blocks.1.depthwise_norm."):
                parameter.zero_()
    without = model(images)
    assert torch.equal(dropped[2], without[2])
    assert not torch.isclose(dropped[[0, 1, 3]], without[[0, 1, 3]]).any(dim=1).all()


def test_recomputed_blocks_give_the_same_gradients() -> None:
    images, keep = torch.randn(4, 3, 8, 8), torch.from_numpy(drop_path_factors(0.5, 3, 4, 0, 0))
    gradients = []
    for recompute in (False, True):
        model = network().train()
        model.recompute = recompute
        model(images, keep).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert plain is not None
        assert again is not None
        assert torch.equal(plain, again)


def test_it_changes_what_is_learnt_and_runs_eager(train: Train) -> None:
    with_it = train("--drop_path=0.5", epochs=1)
    losses = [entry["loss"] for entry in with_it.metrics("train")]
    assert "drop_path: training runs eager" in with_it.done.err
    shutil.rmtree("runs")
    plain = train(epochs=1)
    assert [entry["loss"] for entry in plain.metrics("train")] != pytest.approx(losses, rel=1e-3)


def test_another_backend_is_refused(convmixer: Command, toy: object, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(toy), "--drop_path=0.5", "--execution=fused")
    assert (done.code, done.error) == (2, "--drop_path: runs eager only, not fused; leave --execution out")
