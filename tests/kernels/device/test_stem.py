"""Stem and pooling as operators against the module's own layers in float64."""

from __future__ import annotations

import pytest
import torch
from tests.kernels.device.conftest import Near
from torch import nn

from convmixer.kernels.stem_operators import patch_columns, patch_weight, pool, pool_backward, stem, stem_backward


def test_columns_are_patches_with_rows_of_zeros(device: torch.device) -> None:
    """2 channels, patches of 3 x 3 of 7 x 11 pixels: 18 rows of 32, and pixels beyond the last patch left out."""
    images, weight = torch.randn(4, 2, 7, 11, device=device).double(), torch.randn(5, 2, 3, 3, device=device).double()
    columns = patch_columns(images, 3, torch.float64)
    assert columns.shape == (32, 4, 2, 3)
    assert not columns[18:].any()
    product = torch.einsum("or,rnhw->onhw", patch_weight(weight), columns)
    torch.testing.assert_close(product.transpose(0, 1), nn.functional.conv2d(images, weight, stride=3))


@pytest.mark.parametrize("plan", ["", "products=triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_stem(activation: str, dtype: torch.dtype, plan: str, device: torch.device, assert_near: Near) -> None:
    """Its product has no bias, its sums have, and their gradients reach weight and bias."""
    images, weight = torch.randn(4, 2, 7, 11, device=device), torch.randn(5, 2, 3, 3, device=device)
    bias = torch.randn(5, device=device)
    x, sums, _ = stem(images, weight.requires_grad_(), bias.requires_grad_(), dtype, activation, plan)
    assert x.dtype == dtype
    weight64, bias64 = (tensor.detach().to(dtype).double().requires_grad_() for tensor in (weight, bias.float()))
    bias64 = bias.detach().double().requires_grad_()
    raw = nn.functional.conv2d(images.to(dtype).double(), weight64, stride=3).transpose(0, 1)
    biased = raw + bias64[:, None, None, None]
    active = getattr(nn.functional, activation)(biased)
    sums64 = torch.stack((active.sum((1, 2, 3)), active.square().sum((1, 2, 3))))
    assert_near(x, raw.detach(), dtype)
    assert_near(sums, sums64.detach(), dtype)
    grads = torch.randn_like(x), torch.randn_like(sums)
    torch.autograd.backward((x, sums), grads)
    # Whoever reads the map adds the bias, so that its gradient is the whole map's.
    torch.autograd.backward((biased, sums64), tuple(grad.double() for grad in grads))
    assert_near(weight.grad, weight64.grad, dtype, 2)
    assert_near(bias.grad, bias64.grad, dtype, 2)


def test_pooling_takes_no_gradient_of_the_bias(device: torch.device, assert_near: Near) -> None:
    x, bias = torch.randn(2, 3, 5, 7, device=device, requires_grad=True), torch.randn(2, device=device)
    means = pool(x, bias.requires_grad_(), "gelu", "")
    x64 = x.detach().double().requires_grad_()
    expected = nn.functional.gelu(x64 + bias.detach().double()[:, None, None, None]).mean((2, 3)).t()
    grad = torch.randn(3, 2, device=device)
    means.backward(grad)
    expected.backward(grad.double())
    assert_near(means, expected.detach(), torch.float32)
    assert_near(x.grad, x64.grad, torch.float32)
    assert bias.grad is None


def test_the_operators_are_well_formed(device: torch.device) -> None:
    """torch's own checks of schema, shape functions and the registered gradients."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    images, weight = torch.randn(2, 3, 4, 6, device=device), torch.randn(5, 3, 2, 2, device=device)
    bias = torch.randn(5, device=device)
    arguments = (images, weight.requires_grad_(), bias.requires_grad_(), torch.float32, "gelu", "")
    torch.library.opcheck(stem, arguments, test_utils=checks)
    with torch.no_grad():
        x, sums, columns = stem(*arguments)
        backward = (torch.randn_like(x), sums, x, columns, weight, bias, "gelu", "")
        torch.library.opcheck(stem_backward, backward, test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(pool, (x.requires_grad_(), bias.detach(), "gelu", ""), test_utils=checks)
    pool_arguments = (torch.randn(2, 5, device=device), x.detach(), bias.detach(), "gelu", "")
    torch.library.opcheck(pool_backward, pool_arguments, test_utils=("test_schema", "test_faketensor"))
