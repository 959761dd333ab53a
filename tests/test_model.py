"""The network against its independent descriptions: the paper's nn.Sequential, rebuilt here, and timm's module."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from convmixer.errors import UserError
from convmixer.model import ConvMixer, create_model
from convmixer.weights.layouts import networks

PARAMETERS = {"convmixer_768_32": 21_110_248, "convmixer_1024_20": 24_383_464, "convmixer_1536_20": 51_625_960}


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fn(x) + x


def paper_convmixer(
    dim: int, depth: int, kernel: int, patch: int, activation: type[nn.Module], classes: int
) -> nn.Sequential:
    """Figure 3 of "Patches Are All You Need?", with the published activation of each variant."""

    def normed(*layers: nn.Module) -> list[nn.Module]:
        return [*layers, activation(), nn.BatchNorm2d(dim)]

    blocks = [
        nn.Sequential(
            Residual(nn.Sequential(*normed(nn.Conv2d(dim, dim, kernel, groups=dim, padding="same")))),
            *normed(nn.Conv2d(dim, dim, 1)),
        )
        for _ in range(depth)
    ]
    stem = normed(nn.Conv2d(3, dim, patch, stride=patch))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, classes))


def randomise_norms(module: nn.Module, patch: int) -> None:
    """Random scale and shift, and running statistics near those of random images, so that no signal dies on the way."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        module.train()(torch.randn(2, 3, 4 * patch, 4 * patch))
    for norm in norms:
        norm.momentum = 0.1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.add_(0.1 * torch.randn_like(norm.running_mean))
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.5, 1.5))


def ours_with_weights_of(module: nn.Module, model: ConvMixer, layout: str) -> ConvMixer:
    state = module.state_dict()
    (found,) = networks(state)
    assert found.layout == layout
    model.load_state_dict({found.names[name]: tensor for name, tensor in state.items()})
    return model


def assert_equal_logits(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5 of the largest logit, where the two images are told apart by far more than that."""
    max_value = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.01 * max_value
    assert (logits - expected).abs().max() <= 1e-5 * max_value


@pytest.mark.parametrize("arch", PARAMETERS)
def test_number_of_parameters(arch: str) -> None:
    with torch.device("meta"):
        model = create_model(arch)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[arch]


@pytest.mark.parametrize(
    ("arch", "shape", "activation", "size"),
    [
        ("convmixer_768_32", (768, 32, 7, 7), nn.ReLU, 224),
        ("convmixer_1024_20", (1024, 20, 9, 14), nn.GELU, 224),
        ("convmixer_1536_20", (1536, 20, 9, 7), nn.GELU, 112),
    ],
)
def test_variants_equal_the_paper(arch: str, shape: tuple[int, ...], activation: type[nn.Module], size: int) -> None:
    torch.manual_seed(0)
    dim, depth, kernel, patch = shape
    theirs = paper_convmixer(dim, depth, kernel, patch, activation, 1000)
    randomise_norms(theirs, patch)
    ours = ours_with_weights_of(theirs, create_model(arch), "authors")
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert_equal_logits(ours.eval()(images), theirs.eval()(images))
        small = images[..., : 4 * patch, : 4 * patch]
        assert_equal_logits(ours.train()(small), theirs.train()(small))
    for name, statistic in ours_with_weights_of(theirs, create_model(arch), "authors").named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), statistic, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("activation", "name"), [(nn.ReLU, "relu"), (nn.GELU, "gelu")])
def test_a_training_step_equals_the_papers(activation: type[nn.Module], name: str) -> None:
    torch.manual_seed(1)
    theirs = paper_convmixer(24, 3, 5, 2, activation, 7)
    randomise_norms(theirs, 2)
    options: dict[str, Any] = {"kernel_size": 5, "patch_size": 2, "activation": name, "num_classes": 7}
    ours = ours_with_weights_of(theirs, create_model("convmixer_24_3", **options), "authors")
    before = copy.deepcopy(ours.state_dict())
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 3, 6, 3])
    for model in (theirs, ours):
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    stepped = ours_with_weights_of(theirs, create_model("convmixer_24_3", **options), "authors").state_dict()
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, stepped[key], rtol=1e-4, atol=1e-6)
    # A bias before BatchNorm and ReLU may have no gradient in some channel, but no tensor stands still as a whole.
    assert all(not torch.equal(tensor, before[key]) for key, tensor in ours.state_dict().items())


def test_768_32_equals_timm() -> None:
    torch.manual_seed(2)
    theirs = timm.create_model("convmixer_768_32")
    randomise_norms(theirs, 7)
    ours = ours_with_weights_of(theirs, create_model("convmixer_768_32"), "timm")
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        assert_equal_logits(ours(images), theirs.eval()(images))


def test_gelu_tanh_is_another_function_than_gelu() -> None:
    torch.manual_seed(3)
    exact = create_model("convmixer_16_2", activation="gelu", num_classes=5)
    tanh = create_model("convmixer_16_2", activation="gelu_tanh", num_classes=5)
    tanh.load_state_dict(exact.state_dict())
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        difference = (exact(images) - tanh(images)).abs().max()
    assert 1e-6 < difference < 1e-2


def test_any_size_channels_and_classes() -> None:
    model = create_model("convmixer_8_1", kernel_size=5, patch_size=3, in_chans=4, num_classes=2)
    with torch.no_grad():
        assert model(torch.zeros(5, 4, 10, 17)).shape == (5, 2)
        assert model.features(torch.zeros(5, 4, 10, 17)).shape == (5, 8)
    assert not model.training


def test_a_name_of_another_form_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean convmixer_768_32"):
        create_model("convmixer_768-32")
