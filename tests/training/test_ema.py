"""The average against a hand calculation, and the swap around an evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convmixer.errors import UserError
from convmixer.model import create_model
from convmixer.training.ema import Ema


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def train_a_little(model: nn.Module, seed: int) -> None:
    """Other weights, BatchNorm statistics and counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.train()(torch.randn(4, 3, 8, 8, generator=generator))


def small_convmixer() -> nn.Module:
    torch.manual_seed(0)
    return create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_average_by_hand() -> None:
    model = one_weight(0.0)
    ema = Ema(model, decay=0.2)
    averages = []
    for value in (1.0, 2.0, 4.0, 8.0):
        nn.init.constant_(model.weight, value)
        ema.update(model)
        averages.append(ema.weights()["weight"].item())
    # d = 1/10, 2/11, then 3/12 and 4/13 are above 0.2: 0.9; 0.9 + 9/11 * 1.1; 1.8 + 0.8 * 2.2; 3.56 + 0.8 * 4.44.
    assert averages == pytest.approx([0.9, 1.8, 3.56, 7.112])
    assert ema.updates == 4


def test_decay_is_warmed_up() -> None:
    ema = Ema(one_weight(0.0), decay=0.9999)
    assert [ema.decay_of_update(t) for t in (0, 1, 90, 990)] == pytest.approx([0.1, 2 / 11, 0.91, 0.991])
    assert ema.decay_of_update(89_989) < 0.9999
    assert ema.decay_of_update(89_991) == 0.9999


def test_batchnorm_statistics_are_averaged_and_counts_copied() -> None:
    model = nn.BatchNorm2d(1)
    ema = Ema(model, decay=0.999)
    # Momentum 0.1 and a constant batch of 5: running mean 0.5, running variance 0.9, count 1; then d = 0.1.
    model.train()(torch.full((2, 1, 2, 2), 5.0))
    ema.update(model)
    weights = ema.weights()
    assert weights["running_mean"].item() == pytest.approx(0.45)
    assert weights["running_var"].item() == pytest.approx(0.91)
    assert weights["num_batches_tracked"].item() == 1


def test_names_are_the_models_and_copies_are_apart() -> None:
    model = small_convmixer()
    ema = Ema(model, decay=0.9)
    before = bits(model)
    train_a_little(model, seed=1)
    assert_same_bits(ema.weights(), before)
    assert not any(tensor.requires_grad for tensor in ema.weights().values())


def test_applied_swaps_and_restores_to_the_bit() -> None:
    model = small_convmixer()
    ema = Ema(model, decay=0.9)
    train_a_little(model, seed=1)
    ema.update(model)
    own = bits(model)
    with ema.applied(model):
        assert_same_bits(model.state_dict(), ema.weights())
        assert not torch.equal(model.state_dict()["head.weight"], own["head.weight"])
    assert_same_bits(model.state_dict(), own)


def test_applied_restores_after_an_exception() -> None:
    model = small_convmixer()
    ema = Ema(model, decay=0.9)
    train_a_little(model, seed=1)
    own = bits(model)
    with pytest.raises(KeyboardInterrupt), ema.applied(model):
        raise KeyboardInterrupt
    assert_same_bits(model.state_dict(), own)


def test_applied_keeps_the_parameters_of_the_optimizer() -> None:
    model = small_convmixer()
    before = [id(parameter) for parameter in model.parameters()]
    with Ema(model, decay=0.9).applied(model):
        inside = [id(parameter) for parameter in model.parameters()]
    assert inside == before


def test_copy_to_another_model() -> None:
    model, other = small_convmixer(), small_convmixer()
    ema = Ema(model, decay=0.9)
    train_a_little(model, seed=1)
    ema.update(model)
    ema.copy_to(other)
    assert_same_bits(other.state_dict(), ema.weights())


def test_a_restored_average_goes_on_to_the_bit() -> None:
    model = small_convmixer()
    whole = Ema(model, decay=0.9)
    train_a_little(model, seed=1)
    whole.update(model)
    resumed = Ema(small_convmixer(), decay=0.9)
    resumed.restore({name: tensor.clone() for name, tensor in whole.weights().items()}, whole.updates)
    train_a_little(model, seed=2)
    for ema in (whole, resumed):
        ema.update(model)
    assert resumed.updates == 2
    assert_same_bits(resumed.weights(), whole.weights())


def test_another_models_average_is_refused() -> None:
    ema = Ema(small_convmixer(), decay=0.9)
    with pytest.raises(UserError, match=r"blocks\.0\.depthwise\.bias is not in both"):
        ema.restore({"head.weight": torch.zeros(1)}, 3)


def test_an_update_that_the_device_skips_leaves_the_average() -> None:
    model = one_weight(0.0)
    ema = Ema(model, decay=0.2)
    go, skip = torch.tensor(0.0), torch.tensor(1.0)
    averages = []
    for value, flag in ((1.0, go), (2.0, go), (float("nan"), skip), (float("inf"), skip), (4.0, go)):
        nn.init.constant_(model.weight, value)
        ema.update(model, flag)
        averages.append(ema.weights()["weight"].item())
    # As by hand above; updates count on, so that the last one has d = 0.2 too: 1.8 + 0.8 * 2.2.
    assert averages == pytest.approx([0.9, 1.8, 1.8, 1.8, 3.56])
