"""The depthwise convolution as differentiable torch operators: stride 1, same padding.

`torch.ops.convmixer.depthwise` and `torch.ops.convmixer.depthwise_weight_grad` have shape functions and gradients, so
that torch.compile takes them into its graphs as they stand.
"""

from __future__ import annotations

import torch
from torch import nn

from convmixer.kernels.limits import has_contiguous_planes, log_once, reason_against


def depthwise_conv2d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x, [N, C, H, W], convolved with weight, [C, 1, k, k], plus bias, [C]; of x's shape, type and memory layout.

    Under autocast x is cast to its type first; weight and bias may be of another type than x. Where the kernels do
    not apply, torch's convolution answers, and the reason is logged once.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    reason = reason_against(x.device, x.dtype, weight.shape[-1])
    if reason is None and not has_contiguous_planes(x):
        reason = "they need maps that lie in one piece (NCHW), this is channels_last or a view"
    if reason is not None:
        log_once(f"depthwise convolution: torch's own instead of our kernels: {reason}")
        bias = None if bias is None else bias.to(x.dtype)
        return nn.functional.conv2d(x, weight.to(x.dtype), bias, padding="same", groups=weight.shape[0])
    out: torch.Tensor = depthwise(x, weight, bias, False)
    return out


@torch.library.custom_op(
    "convmixer::depthwise", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias, bool flip) -> Tensor"
)
def depthwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, flip: bool) -> torch.Tensor:
    """The convolution, with the filter rotated by 180 degrees if `flip`: its data gradient."""
    from convmixer.kernels import depthwise_launch

    return depthwise_launch.depthwise(_in_planes(x), weight, bias, flip=flip)[0]


@torch.library.custom_op(
    "convmixer::depthwise_weight_grad", mutates_args=(), schema="(Tensor x, Tensor grad, int kernel_size) -> Tensor"
)
def depthwise_weight_grad(x: torch.Tensor, grad: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """The gradient of the filter, fp32 [C, 1, k, k], from the input and the gradient of the output."""
    from convmixer.kernels import depthwise_launch

    return depthwise_launch.depthwise_weight_grad(_in_planes(x), _in_planes(grad), kernel_size)


def _in_planes(x: torch.Tensor) -> torch.Tensor:
    # Not contiguous(), which leaves a tensor with sides of 1 as it is, whatever its strides say.
    return x if has_contiguous_planes(x) else x.clone(memory_format=torch.contiguous_format)


def _depthwise_shape(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, flip: bool) -> torch.Tensor:
    return torch.empty_like(_in_planes(x))


def _weight_grad_shape(x: torch.Tensor, grad: torch.Tensor, kernel_size: int) -> torch.Tensor:
    return x.new_empty((x.shape[1], 1, kernel_size, kernel_size), dtype=torch.float32)


def _remember(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, bool],
    output: torch.Tensor,
) -> None:
    x, weight, bias, flip = inputs
    ctx.save_for_backward(x, weight)
    ctx.flip, ctx.bias_dtype = flip, None if bias is None else bias.dtype  # type: ignore[attr-defined]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None]:
    x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
    flip, bias_dtype = ctx.flip, ctx.bias_dtype  # type: ignore[attr-defined]
    x_grad = depthwise(grad, weight, None, not flip) if wants_x else None
    weight_grad = bias_grad = None
    if wants_weight:
        weight_grad = depthwise_weight_grad(x, grad, weight.shape[-1]).to(weight.dtype)
        weight_grad = weight_grad.flip(-1, -2) if flip else weight_grad
    if wants_bias:
        bias_grad = grad.sum(dim=(0, 2, 3), dtype=torch.float32).to(bias_dtype)
    return x_grad, weight_grad, bias_grad, None


depthwise.register_fake(_depthwise_shape)
depthwise_weight_grad.register_fake(_weight_grad_shape)
depthwise.register_autograd(_backward, setup_context=_remember)
