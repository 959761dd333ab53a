"""Single steps against a hand calculation, and who decays."""

from __future__ import annotations

import sys
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
#   lion   0.999 - 0.1, m = 0.005; 0.9 * 0.005 - 0.1 * 0.25 is below 0: 0.899 * 0.999 + 0.1
#   schedule_free  z = 1 - 0.1 * (0.5 / 1.5 + 0.01), and so are x and y; then v = 0.0031 / 0.0199,
#          z = 0.9656667 - 0.1 * (-0.25 / 1.3946899 + 0.0096567) = 0.9826262, x = their mean, y = 0.1 z + 0.9 x
# and the bias as if without decay.
@pytest.mark.parametrize(
    ("name", "weights", "biases"),
    [
        ("adamw", [0.9656667, 0.9571536], [0.9666667, 0.9591193]),
        ("adam", [0.9662252, 0.9579932], [0.9666667, 0.9591193]),
        ("sgd", [0.949, 0.927151], [0.95, 0.93]),
        ("momentum", [0.949, 0.927151], [0.95, 0.93]),
        ("lion", [0.899, 0.998101], [0.9, 1.0]),
        ("schedule_free", [0.9656667, 0.9749944], [0.9666667, 0.9765255]),
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


# Gradients (0.5, -0.25), then (-0.25, 0.5), by hand: m = 0.1 * g and sqrt(v) = 0.1 * |g|, so that
#   u = (1 + 0.03, -1 + 0.04), its norm 1.4080; the weight's is 5: (3, 4) - 0.1 * 3.5511 * u
#   m = (0.02, 0.0275), v = (0.0031, 0.0031187), u = (0.38555, 0.53584), norms 5.0777 and 0.66013
# and the bias, which takes plain u: 1 - 0.1, then m = 0.02, v = 0.0031, 0.9 - 0.1 * 0.35921.
def test_two_steps_of_lamb_by_hand() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
        model.bias.fill_(1.0)
    optimizer = made(model, "lamb", eps=1e-8)
    for gradient, weight, bias in (
        ((0.5, -0.25), (2.6342362, 4.3409060), 0.9),
        ((-0.25, 0.5), (2.3376723, 3.9287452), 0.8640790),
    ):
        model.weight.grad, model.bias.grad = torch.tensor([gradient]), torch.tensor([gradient[0]])
        optimizer.step()
        assert model.weight[0].tolist() == pytest.approx(weight, abs=2e-6)
        assert model.bias.item() == pytest.approx(bias, abs=2e-6)


def test_lamb_takes_the_norm_of_a_large_weight_for_10() -> None:
    """Where u = sign(gradient): a weight of norm 50 loses 0.1 * 10 / |u| * u, |u| = sqrt(2)."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[30.0, 40.0]]))
    optimizer = made(model, "lamb", eps=1e-8, weight_decay=0.0)
    model.weight.grad = torch.tensor([[2.0, -3.0]])
    optimizer.step()
    assert model.weight[0].tolist() == pytest.approx((30 - 0.5**0.5, 40 + 0.5**0.5), abs=1e-5)


def twins() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    one, other = (create_model("convmixer_16_2", kernel_size=3, patch_size=2, num_classes=5) for _ in range(2))
    other.load_state_dict(one.state_dict())
    return one, other


def test_muon_is_of_torch_for_the_convolutions_that_mix_channels_and_adamw_for_the_rest() -> None:
    """torch's own Muon takes matrices only, with the factor 0.2 sqrt(max(rows, columns)) as match_rms_adamw."""
    model, twin = twins()
    ours = made(model, "muon", eps=1e-3)
    filters = {"stem.conv.weight", *(f"blocks.{block}.pointwise.weight" for block in (0, 1))}
    pairs = [(name, p, dict(twin.named_parameters())[name]) for name, p in model.named_parameters()]
    matrices = {name: nn.Parameter(q.detach().clone().flatten(1)) for name, _, q in pairs if name in filters}
    square = torch.optim.Muon(
        matrices.values(), lr=0.1, weight_decay=0.01, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    rest = [
        {**group, "params": [p for p in group["params"] if p.shape not in ((16, 16, 1, 1), (16, 3, 2, 2))]}
        for group in parameter_groups(twin, 0.01)
    ]
    set_lr(ours, 0.1)
    others = torch.optim.AdamW(rest, lr=0.04, betas=(0.9, 0.99), eps=1e-3)
    for _ in range(3):
        for name, p, q in pairs:
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
            if name in matrices:
                matrices[name].grad = p.grad.flatten(1).clone()
        for optimizer in (ours, square, others):
            optimizer.step()
    for name, p, q in pairs:
        if name in matrices:
            # Both orthogonalise in bf16, whose products differ in the last of 8 bits.
            torch.testing.assert_close(p.flatten(1), matrices[name], rtol=0, atol=3e-3, msg=name)
        else:
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5, msg=name)


def test_muon_makes_the_update_of_a_pointwise_filter_nearly_orthogonal() -> None:
    """Singular values of 0.7 to 1.2 by its five steps (https://kellerjordan.github.io/posts/muon), times the factor."""
    model, twin = twins()
    optimizer = made(model, "muon", weight_decay=0.0)
    before, after = twin.blocks[0].pointwise.weight, model.blocks[0].pointwise.weight  # type: ignore[index, union-attr]
    left, right = (torch.linalg.qr(torch.randn(16, 16))[0] for _ in range(2))
    after.grad = (left @ torch.diag(torch.linspace(0.2, 1.0, 16)) @ right).view_as(after)
    optimizer.step()
    values = torch.linalg.svdvals((before - after).detach().view(16, 16)) / (0.1 * 0.2 * 16**0.5)
    assert 0.6 < values.min() < values.max() < 1.3


@pytest.mark.parametrize("name", ["lion", "lamb", "muon", "schedule_free"])
def test_each_goes_down_to_a_minimum(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = made(model, name, eps=1e-8, weight_decay=0.0)
    losses = []
    for step in range(150):
        set_lr(optimizer, 0.05 if step < 120 else 0.005)
        optimizer.zero_grad()
        loss = model.weight.square().sum() + (model.bias - 1).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_values_that_an_optimizer_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match=r"^optimizer: schedule_free: .*beta1"):
        made(one_unit(), "schedule_free", beta=(0.0, 0.9))


@pytest.mark.parametrize("name", ["lion", "lamb", "muon", "schedule_free"])
def test_a_missing_package_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(UserError) as caught:
        made(one_unit(), name)
    assert str(caught.value) == (
        f"optimizer: {name} needs pytorch_optimizer, which is not installed: pip install 'convmixer[torch]'"
    )


def test_the_options_offer_exactly_these() -> None:
    names = ("adamw", "adam", "sgd", "momentum", "lion", "lamb", "muon", "schedule_free")
    assert choices_of(Config.model_fields["optimizer"].annotation) == names
    assert tuple(OPTIMIZERS) == names


def test_who_honours_found_inf() -> None:
    """By torch's flag those with a fused step; their plain steps refuse it or, as RMSprop's, do not look at it."""
    for name, entry in OPTIMIZERS.items():
        model = one_unit()
        assert honours_found_inf(made(model, name)) == entry.has_fused, name
        if entry.has_fused:
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


@pytest.mark.parametrize("name", OPTIMIZERS)
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


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if entry.has_fused])
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


def test_layers_have_learning_rates_of_their_own() -> None:
    """BEiT's rule, F ** (depth + 1 - layer), by hand for two blocks and F = 0.5."""
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)
    optimizer = made(model, "adamw", layer_decay=0.5)
    set_lr(optimizer, 0.8)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert found.keys() == set(names.values())
    wanted = {"stem.": 0.1, "blocks.0.": 0.2, "blocks.1.": 0.4, "head.": 0.8}
    for start, lr in wanted.items():
        rates = {value for name, value in found.items() if name.startswith(start)}
        assert sorted(rates) == pytest.approx([lr]), start


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"momentum"}))
def test_each_optimizer_steps_by_the_layers_rates(name: str) -> None:
    """The first step of equal gradients is proportional to the learning rate, with each of them."""
    moved = []
    for decay in (1.0, 0.5):
        torch.manual_seed(0)
        model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)
        before = {key: value.clone() for key, value in model.named_parameters()}
        optimizer = made(model, name, layer_decay=decay, weight_decay=0.0)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        moved.append({key: (value - before[key]).detach() for key, value in model.named_parameters()})
    for key, plain in moved[0].items():
        layer = 0 if key.startswith("stem") else 3 if key.startswith("head") else int(key.split(".")[1]) + 1
        torch.testing.assert_close(moved[1][key], plain * 0.5 ** (3 - layer), rtol=1e-3, atol=1e-6)


def test_a_decay_of_one_changes_no_group() -> None:
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5)
    plain, same = parameter_groups(model, 0.05), parameter_groups(model, 0.05, layer_decay=1.0)
    assert [group.keys() for group in plain] == [group.keys() for group in same]
    assert [[id(p) for p in group["params"]] for group in plain] == [[id(p) for p in group["params"]] for group in same]
    assert len(plain) == 2
