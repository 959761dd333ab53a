"""The checks that come before any timing on a GPU: they pass what is right, and what is a little wrong fails."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from convmixer.arch import VARIANTS, Architecture
from convmixer.model import ConvMixer


@pytest.fixture(scope="module")
def network_check(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("network_check")


def narrow(variant: str, depth: int) -> Architecture:
    return replace(VARIANTS[variant], dim=48, depth=depth, num_classes=20)


def right(model: ConvMixer, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


def in_the_other_layout(model: ConvMixer, images: Tensor) -> Tensor:
    return right(model.to(memory_format=torch.channels_last), images)


def variance_1_percent_off(model: ConvMixer, images: Tensor) -> Tensor:
    """A scale of gamma / sqrt(1.01 var)."""
    model.get_parameter("blocks.1.pointwise_norm.weight").data.div_(1.01**0.5)
    return right(model, images)


def sum_of_a_gradient_1_percent_off(model: ConvMixer, images: Tensor) -> Tensor:
    model.get_parameter("blocks.0.depthwise.bias").register_hook(lambda grad: 1.01 * grad)
    return right(model, images)


def shift_ignored(model: ConvMixer, images: Tensor) -> Tensor:
    model.get_parameter("blocks.0.depthwise_norm.bias").data.zero_()
    return right(model, images)


def filter_flipped(model: ConvMixer, images: Tensor) -> Tensor:
    weight = model.get_parameter("blocks.1.depthwise.weight")
    weight.data = weight.data.flip(-1, -2)
    return right(model, images)


def not_a_number(model: ConvMixer, images: Tensor) -> Tensor:
    return right(model, images) * float("nan")


# Whether the check in fp32 and in bf16 sees it.
FORWARDS = [
    (right, False, False),
    (in_the_other_layout, False, False),
    (variance_1_percent_off, True, False),
    (shift_ignored, True, True),
    (filter_flipped, True, True),
    (not_a_number, True, True),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", ["convmixer_768_32", "convmixer_1024_20"])
def test_right_networks_pass_and_wrong_ones_do_not(
    network_check: ModuleType, variant: str, precision: str, training: bool
) -> None:
    dtype = network_check.DTYPES[precision]
    size = 8 * VARIANTS[variant].patch_size
    check = network_check.NetworkCheck(narrow(variant, 20), size, 8, dtype, training, torch.device("cpu"))
    blank = network_check.Checked(variant, "training" if training else "evaluation", precision, "", right=False)
    for forward, seen_in_fp32, seen_in_bf16 in FORWARDS:
        wrong = seen_in_fp32 if precision == "fp32" else seen_in_bf16
        found = check(blank, forward)
        assert found.right is not wrong, f"{forward.__name__}: {found}"
    if training and precision == "fp32" and variant == "convmixer_1024_20":
        assert not check(blank, sum_of_a_gradient_1_percent_off).right
    failed = check(blank, lambda model, images: 1 / 0)
    assert (failed.right, failed.note) == (False, "ZeroDivisionError: division by zero")


def test_the_whole_new_network_on_noise_tells_nothing(network_check: ModuleType) -> None:
    """Why two blocks, settled statistics and pictures: eager bf16, which is right, is far from eager fp32 in training,
    and in evaluation no fault of a filter shows."""
    torch.manual_seed(0)
    model = ConvMixer(narrow("convmixer_768_32", 32))
    images = torch.randn(8, 3, 56, 56)

    def apart(forward: object, *, bf16: bool = False) -> float:
        with torch.no_grad():
            exact = copy.deepcopy(model)(images)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                found = forward(copy.deepcopy(model), images).float()  # type: ignore[operator]
        return float((found - exact).abs().max() / exact.abs().max())

    assert apart(right, bf16=True) > 0.1
    model.eval()
    assert apart(filter_flipped) < 0.01


def test_every_output_of_a_kernel_is_checked(benchmark_script: Callable[[str], ModuleType]) -> None:
    error_of = benchmark_script("kernel_cases").error_of
    exact = torch.randn(3, 5).double(), torch.randn(2, 3).double().abs() + 1
    maps, sums = exact[0].bfloat16(), exact[1].float()
    empty = torch.empty(0)
    assert error_of((maps, sums, None, empty), exact, torch.bfloat16) < 1
    assert error_of((maps, 1.01 * sums), exact, torch.bfloat16) > 1
    assert error_of((maps.flip(0), sums), exact, torch.bfloat16) > 1
    for wrong in (maps, (maps, sums, sums), (maps, sums[:1]), (maps * float("nan"), sums)):
        assert error_of(wrong, exact, torch.bfloat16) == float("inf")
