"""Stem and pooling of a ConvMixer as torch operators, with maps [C, N, H, W] in the form that blocks read and write.

The stem gives its convolution's raw product and the sums for the BatchNorm behind it, as a block does; see there for
where biases enter. The pooling is a mean over act(h2 + bias), since a mean can be taken before a scale and a shift.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from convmixer.kernels.plan import Plan

_ROWS = 16
"""Rows of the columns' matrix are a multiple of this: the weight's rows then start at multiples of 16 bytes."""


def patch_columns(images: torch.Tensor, patch: int, dtype: torch.dtype) -> torch.Tensor:
    """[R, N, H, W] in `dtype` from images [N, channels, height, width]: each patch as a column, in H x W patches.

    R is channels * patch^2, rounded up with rows of zeros. What is beyond the last whole patch is left out.
    """
    n, channels, height, width = images.shape[0], images.shape[1], images.shape[2] // patch, images.shape[3] // patch
    rows = channels * patch * patch
    columns = images.new_empty((-(-rows // _ROWS) * _ROWS, n, height, width), dtype=dtype)
    columns[rows:].zero_()
    patches = images[:, :, : height * patch, : width * patch].unflatten(2, (height, patch)).unflatten(4, (width, patch))
    # One copy, which also rounds.
    columns[:rows].view(channels, patch, patch, n, height, width).copy_(patches.permute(1, 3, 5, 0, 2, 4))
    return columns


def patch_weight(weight: torch.Tensor) -> torch.Tensor:
    """The stem's filter, [C, channels, patch, patch], as the matrix [C, R] for `patch_columns`."""
    flat = weight.flatten(1)
    return nn.functional.pad(flat, (0, -flat.shape[1] % _ROWS))


@torch.library.custom_op(
    "convmixer::stem",
    mutates_args=(),
    schema="(Tensor images, Tensor weight, Tensor bias, ScalarType dtype, str activation, str plan) -> "
    "(Tensor x, Tensor sums, Tensor columns)",
)
def stem(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, activation: str, plan: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The patch embedding without its bias, x [C, N, H, W]; sums, fp32 [2, C], of act(x + bias); the columns.

    Gradients of weight and bias flow through the first two. There is none of the images.
    """
    from convmixer.kernels import pointwise_launch

    columns = patch_columns(images, weight.shape[-1], dtype)
    matrix = patch_weight(weight)[:, :, None, None]
    x, sums = pointwise_launch.forward(columns, matrix, bias, activation, Plan.parse(plan))
    return x, sums, columns


@torch.library.custom_op(
    "convmixer::stem_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor sums_grad, Tensor x, Tensor columns, Tensor weight, Tensor bias, str activation, "
    "str plan) -> (Tensor, Tensor)",
)
def stem_backward(
    grad: torch.Tensor,
    sums_grad: torch.Tensor,
    x: torch.Tensor,
    columns: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    activation: str,
    plan: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of weight and bias, from those of x and its sums."""
    from convmixer.kernels import elementwise_launch, pointwise_launch

    erf = Plan.parse(plan).erf
    x_grad, bias_grad = elementwise_launch.activation_grad(grad.contiguous(), x, bias, sums_grad, activation, erf=erf)
    weight_grad = pointwise_launch.weight_grad(x_grad, columns)[:, : weight[0].numel()]
    return weight_grad.contiguous().view_as(weight).to(weight.dtype), bias_grad.to(bias.dtype)


@torch.library.custom_op(
    "convmixer::pool", mutates_args=(), schema="(Tensor x, Tensor bias, str activation, str plan) -> Tensor"
)
def pool(x: torch.Tensor, bias: torch.Tensor, activation: str, plan: str) -> torch.Tensor:
    """The mean of act(x + bias) over each map, fp32 [N, C], for x [C, N, H, W]. Differentiable to x."""
    from convmixer.kernels import elementwise_launch

    return elementwise_launch.pool(x, bias, activation, erf=Plan.parse(plan).erf)


@torch.library.custom_op(
    "convmixer::pool_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor bias, str activation, str plan) -> Tensor",
)
def pool_backward(grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor, activation: str, plan: str) -> torch.Tensor:
    """The gradient of x, from that of the means."""
    from convmixer.kernels import elementwise_launch

    return elementwise_launch.pool_grad(grad.contiguous(), x, bias, activation, erf=Plan.parse(plan).erf)


def _stem_shape(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype, *forms: str
) -> tuple[torch.Tensor, ...]:
    columns = patch_columns(images, weight.shape[-1], dtype)
    x = columns.new_empty((weight.shape[0], *columns.shape[1:]))
    return x, x.new_empty((2, weight.shape[0]), dtype=torch.float32), columns


def _stem_remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    _, weight, bias, _, activation, plan = inputs
    x, _, columns = output
    ctx.save_for_backward(x, columns, weight, bias)
    ctx.forms = activation, plan
    ctx.mark_non_differentiable(columns)
    ctx.set_materialize_grads(False)


def _stem_backward(ctx: Any, grad: torch.Tensor | None, sums_grad: torch.Tensor | None, _: None) -> tuple[Any, ...]:
    x = ctx.saved_tensors[0]
    grad = torch.zeros_like(x) if grad is None else grad
    sums_grad = x.new_zeros((2, x.shape[0]), dtype=torch.float32) if sums_grad is None else sums_grad
    return (None, *stem_backward(grad, sums_grad.contiguous(), *ctx.saved_tensors, *ctx.forms), None, None, None)


def _pool_remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, bias, activation, plan = inputs
    ctx.save_for_backward(x, bias)
    ctx.forms = activation, plan


def _pool_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return pool_backward(grad, *ctx.saved_tensors, *ctx.forms), None, None, None


stem.register_fake(_stem_shape)
stem_backward.register_fake(
    lambda grad, sums_grad, x, columns, weight, bias, *forms: (
        torch.empty_like(weight, memory_format=torch.contiguous_format),
        torch.empty_like(bias),
    )
)
stem.register_autograd(_stem_backward, setup_context=_stem_remember)
pool.register_fake(lambda x, *others: x.new_empty((x.shape[1], x.shape[0]), dtype=torch.float32))
pool_backward.register_fake(lambda grad, x, *others: torch.empty_like(x))
pool.register_autograd(_pool_backward, setup_context=_pool_remember)
