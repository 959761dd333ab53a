"""Single steps against a hand calculation, and who decays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]  # documented, not in __all__
from torch.nn.parallel import DistributedDataParallel

from convmixer.config.optimizer import OptimizerOptions
from convmixer.config.options import choices_of
from convmixer.config.schema import Config
from convmixer.errors import UserError
from convmixer.model import create_model
from convmixer.optimizers import OPTIMIZERS
from convmixer.training.optimizer import create_optimizer, honours_found_inf, parameter_groups, set_lr, take_layout

SETTINGS = {"beta": (0.9, 0.99), "eps": 1.0, "momentum": 0.9, "weight_decay": 0.01}


def made(model: nn.Module, name: str, **changes: object) -> torch.optim.Optimizer:
    """An optimizer with a learning rate of 0.1."""
    optimizer = create_optimizer(model, OptimizerOptions(optimizer=name, **SETTINGS | changes))  # type: ignore[arg-type]
    set_lr(optimizer, 0.1)
    return optimizer


def one_unit() -> nn.Linear:
    """A weight that decays and a bias that does not, both 1."""
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    return model


def decays(model: nn.Module, weight_decay: float = 0.05) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(p)], group["weight_decay"])
        for group in parameter_groups(model, weight_decay)
        for p in group["params"]
    ]
    assert len(found) == len(dict(found))
    return dict(found)


# Gradients 0.5 and -0.25. Weight, by hand:
#   adamw  0.999 - 0.1 * 0.5 / 1.5; then m = 0.02, v = 0.0031, divided by 0.19 and 0.0199
#   adam   gradients 0.51 and -0.25 + 0.01 * weight
#   sgd    v = 0.51, 0.949; v = 0.459 - 0.25 + 0.00949, 0.927151
# and the bias as if without decay.
@pytest.mark.parametrize(
    ("name", "weights", "biases"),
    [
        ("adamw", [0.9656667, 0.9571536], [0.9666667, 0.9591193]),
        ("adam", [0.9662252, 0.9579932], [0.9666667, 0.9591193]),
        ("sgd", [0.949, 0.927151], [0.95, 0.93]),
        ("momentum", [0.949, 0.927151], [0.95, 0.93]),
    ],
)
def test_two_steps_by_hand(name: str, weights: list[float], biases: list[float]) -> None:
    model = one_unit()
    optimizer = made(model, name)
    for gradient, weight, bias in zip((0.5, -0.25), weights, biases, strict=True):
        model.weight.grad = torch.full((1, 1), gradient)
        model.bias.grad = torch.full((1,), gradient)
        optimizer.step()
        assert model.weight.item() == pytest.approx(weight, abs=2e-7)
        assert model.bias.item() == pytest.approx(bias, abs=2e-7)


def test_the_options_offer_exactly_these() -> None:
    assert choices_of(Config.model_fields["optimizer"].annotation) == ("adamw", "adam", "sgd", "momentum")
    assert tuple(OPTIMIZERS) == ("adamw", "adam", "sgd", "momentum")


def test_who_honours_found_inf() -> None:
    """By torch's flag those with a fused step; their plain steps refuse it or, as RMSprop's, do not look at it."""
    for name, entry in OPTIMIZERS.items():
        model = one_unit()
        assert honours_found_inf(made(model, name)) == entry.has_fused, name
        module, _, cls = entry.cls.rpartition(".")
        plain = getattr(import_module(module), cls)(parameter_groups(model, 0.01), lr=0.1)
        assert not honours_found_inf(plain), name
    assert not honours_found_inf(torch.optim.RMSprop(one_unit().parameters()))


def test_all_parameters_decay_where_asked() -> None:
    """Plain SGD with decay_all: both shrink by 0.1 * 0.01 * 1 beside their gradients 0.5."""
    model = one_unit()
    optimizer = made(model, "sgd", momentum=0.0, decay_all=True)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 0.5), torch.full((1,), 0.5)
    optimizer.step()
    assert (model.weight.item(), model.bias.item()) == pytest.approx((0.949, 0.949))


def test_set_lr_holds_for_every_group() -> None:
    model = one_unit()
    optimizer = made(model, "sgd", momentum=0.0)
    for lr, weight, bias in ((0.2, 0.898, 0.9), (0.0, 0.898, 0.9)):
        set_lr(optimizer, lr)
        model.weight.grad = torch.full((1, 1), 0.5)
        model.bias.grad = torch.full((1,), 0.5)
        optimizer.step()
        assert (model.weight.item(), model.bias.item()) == pytest.approx((weight, bias))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_agrees_with_the_plain_step_of_torch(name: str) -> None:
    torch.manual_seed(0)
    models = [create_model("convmixer_16_2", kernel_size=3, patch_size=2, num_classes=5) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = made(models[0], name, eps=1e-3)
    plain_of: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
        "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-3, foreach=False, fused=False),
        "adam": lambda groups: torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-3, foreach=False, fused=False),
        "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, foreach=False, fused=False),
    }
    plain = plain_of[name](parameter_groups(models[1], 0.01))
    for step in range(20):
        for parameter, twin in zip(models[0].parameters(), models[1].parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            twin.grad = parameter.grad.clone()
        for optimizer in (ours, plain):
            set_lr(optimizer, 0.01 / (1 + step))
            optimizer.step()
    for parameter, twin in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(parameter, twin, rtol=1e-6, atol=1e-6)


def test_who_decays_in_a_convmixer() -> None:
    found = decays(create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5))
    assert {name for name, decay in found.items() if decay == 0.05} == {
        "stem.conv.weight",
        "blocks.0.depthwise.weight",
        "blocks.0.pointwise.weight",
        "blocks.1.depthwise.weight",
        "blocks.1.pointwise.weight",
        "head.weight",
    }
    # Biases of 6 layers, weight and bias of 5 BatchNorms.
    assert sorted(found.values()) == [0.0] * 16 + [0.05] * 6


def test_who_decays_in_an_unnamed_sequential() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    assert decays(model) == {
        "0.weight": 0.05,
        "0.bias": 0.0,
        "2.weight": 0.0,
        "2.bias": 0.0,
        "4.weight": 0.05,
        "4.bias": 0.0,
    }


@pytest.fixture
def process_group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_distributed_wrapper_changes_nothing() -> None:
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)
    wrapped = decays(DistributedDataParallel(model))
    assert {name.removeprefix("module."): decay for name, decay in wrapped.items()} == decays(model)


def test_frozen_parameters_are_left_out() -> None:
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    assert decays(model) == {"head.weight": 0.05, "head.bias": 0.0}
    model.head.weight.requires_grad_(False)
    assert decays(model) == {"head.bias": 0.0}


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(UserError, match="no parameter is left to train"):
        made(one_unit().requires_grad_(False), "adamw")


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_moments_of_another_memory_layout_stay_with_their_elements(name: str) -> None:
    # A checkpoint made in one layout of the weights, gone on with in the other.
    ends = []
    for moments in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 2, bias=False).to(memory_format=torch.channels_last)
        optimizer = made(model, name)
        for _ in range(2):
            model.weight.grad = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
            optimizer.step()
            for key, value in optimizer.state[model.weight].items():
                if value.dim() == 4:
                    optimizer.state[model.weight][key] = value.contiguous(memory_format=moments)
            take_layout(optimizer)
        ends.append(model.weight.detach().clone())
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_that_is_skipped_on_the_device_leaves_nothing(name: str) -> None:
    ends = []
    for skipped in (False, True):
        model = one_unit()
        optimizer = made(model, name)
        if skipped:
            model.weight.grad, model.bias.grad = torch.full((1, 1), float("nan")), torch.zeros(1)
            told: Any = optimizer  # an attribute that torch sets on it
            told.found_inf = torch.tensor(1.0)
            optimizer.step()
            del told.found_inf
        model.weight.grad, model.bias.grad = torch.full((1, 1), 0.5), torch.full((1,), 0.5)
        optimizer.step()
        ends.append((model.weight.item(), model.bias.item()))
    assert ends[0] == ends[1]
