"""The repacked network answers what the module does, at every activation, kernel, size and batch."""

from __future__ import annotations

import pytest
import torch
from tests.backends.conftest import MakeModel

from convmixer.backends.onednn_inference import PackedConvMixer

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def relative(answer: torch.Tensor, right: torch.Tensor) -> float:
    right = right.detach().double()
    return float((answer.double() - right).norm() / right.norm())


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize(("kernel", "patch", "size"), [(3, 1, 9), (5, 2, 16), (7, 3, 20), (9, 7, 28)])
def test_fp32_logits_are_those_of_the_module_in_float64(
    small_model: MakeModel, activation: str, kernel: int, patch: int, size: int
) -> None:
    model = small_model(kernel_size=kernel, patch_size=patch, activation=activation)
    images = torch.randn(3, 3, size, size)
    right = model.double()(images.double())
    assert relative(PackedConvMixer(model.float(), size, torch.float32)(images), right) < 1e-5


def test_bf16_logits_are_near_and_fp32(small_model: MakeModel) -> None:
    model = small_model()
    images = torch.randn(4, 3, 16, 16)
    logits = PackedConvMixer(model, 16, torch.bfloat16)(images)
    assert logits.dtype == torch.float32
    # bf16 has 8 bits: 2^-9 a rounding, a dozen roundings one after the other.
    assert 1e-5 < relative(logits, model(images)) < 3e-2


def test_autocast_of_the_caller_changes_nothing(small_model: MakeModel) -> None:
    packed = PackedConvMixer(small_model(), 16, torch.float32)
    images = torch.randn(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = packed(images)
    assert torch.equal(inside, packed(images))


@pytest.mark.parametrize("images_at_once", [1, 2, 5, 9])
def test_several_workers_answer_in_order(small_model: MakeModel, images_at_once: int) -> None:
    model = small_model()
    packed = PackedConvMixer(model, 16, torch.float32)
    packed.workers, packed.part = 3, 2
    threads = torch.get_num_threads()
    try:
        images = torch.randn(images_at_once, 3, 16, 16)
        torch.testing.assert_close(packed(images), model(images).detach(), rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(threads)


def test_images_of_another_size_than_it_was_packed_for(small_model: MakeModel) -> None:
    model = small_model()
    images = torch.randn(2, 3, 22, 30)
    logits = PackedConvMixer(model, 16, torch.float32)(images)
    torch.testing.assert_close(logits, model(images).detach(), rtol=1e-4, atol=1e-4)
