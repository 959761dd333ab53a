"""Training on the CPU: output and gradients are those of torch's own convolutions, the whole network's too."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from tests.backends.conftest import MakeModel
from torch import nn

from convmixer.backends.onednn_training import depthwise, pointwise, training_forward, weight_gradient

# Channels that make whole vectors of the processor, and such that do not; odd maps smaller and larger than the kernel.
SHAPES = [(2, 16, 5, 7, 3), (3, 48, 8, 8, 5), (1, 32, 4, 4, 7), (2, 24, 9, 5, 5), (2, 16, 6, 6, 1)]


@pytest.mark.parametrize(("n", "c", "h", "w", "k"), SHAPES)
def test_depthwise_against_float64(n: int, c: int, h: int, w: int, k: int) -> None:
    x = torch.randn(n, c, h, w).requires_grad_()
    weight, bias = torch.randn(c, 1, k, k).requires_grad_(), torch.randn(c).requires_grad_()
    grad = torch.randn(n, c, h, w)
    out = depthwise(x, weight, bias)
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    right = nn.functional.conv2d(wide[0], wide[1], wide[2], padding="same", groups=c)
    torch.testing.assert_close(out.double(), right, rtol=1e-4, atol=1e-4)
    found = torch.autograd.grad(out, (x, weight, bias), grad)
    expected = torch.autograd.grad(right, wide, grad.double())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_weight_gradient_in_bf16() -> None:
    x, grad = (torch.randn(4, 32, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight = torch.zeros(32, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    out = nn.functional.conv2d(x.double(), weight, padding=2, groups=32)
    (right,) = torch.autograd.grad(out, weight, grad.double())
    # The sums are fp32; that of each image and the result have 8 bits.
    found = weight_gradient(x, grad, 5).double()
    assert (found - right).abs().max() < 2**-8 * right.abs().max()


def test_weight_gradient_in_parts_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, grad = (torch.randn(5, 3, 4, 6).contiguous(memory_format=torch.channels_last) for _ in range(2))
    whole = weight_gradient(x, grad, 3)
    monkeypatch.setattr("convmixer.backends.onednn_training.CHUNK_BYTES", 2 * x[0].nbytes)
    torch.testing.assert_close(weight_gradient(x, grad, 3), whole, rtol=1e-5, atol=1e-5)


def test_pointwise_is_the_convolution() -> None:
    x = torch.randn(2, 6, 5, 3).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(9, 6, 1, 1), torch.randn(9)
    out = pointwise(x, weight, bias)
    torch.testing.assert_close(out, nn.functional.conv2d(x, weight, bias), rtol=1e-5, atol=1e-5)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight = torch.randn(2, 16, 4, 4), torch.randn(16, 1, 3, 3).requires_grad_()
    depthwise(x, weight, torch.zeros(16)).sum().backward()
    assert weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_network_trains_as_the_module_does(small_model: MakeModel, activation: str) -> None:
    model = small_model(activation=activation).train()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    images, labels = torch.randn(6, 3, 16, 16), torch.randint(7, (6,))
    right, logits = model(images), training_forward(other, images)
    torch.testing.assert_close(logits, right, rtol=1e-3, atol=1e-3)
    for answer in (right, logits):
        nn.functional.cross_entropy(answer, labels).backward()
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-4, msg=partial("{}: {}".format, name))
    for (name, ours), theirs in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5, msg=partial("{}: {}".format, name))
    assert other.stem.norm.num_batches_tracked is not None
    assert int(other.stem.norm.num_batches_tracked) == 1


def test_under_autocast_it_computes_in_bf16(small_model: MakeModel) -> None:
    x, weight = torch.randn(2, 16, 4, 4), torch.randn(16, 1, 3, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x, weight, None)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
