"""A ConvMixer block as torch operators, from one pointwise convolution's raw output to the next one's.

A block's input is not the map z that its module takes, but x, scale and shift with z = scale * act(x) + shift: the
activation and BatchNorm of the layer before happen when x is read. Likewise it gives its pointwise convolution's
output, with the sums that make the statistics of the BatchNorm behind it. So each map goes through memory once.
Maps are contiguous [C, N, H, W]; of those a block makes, it keeps h1 and h2 (its two convolutions' outputs) alone.
"""

from __future__ import annotations

from typing import Any

import torch

from convmixer.kernels.batch_norm import Moments, affine, moments_of

_PARAMETERS = (
    "Tensor x, Tensor scale, Tensor shift, Tensor depthwise_weight, Tensor depthwise_bias, "
    "Tensor norm_weight, Tensor norm_bias, Tensor pointwise_weight, Tensor pointwise_bias"
)


@torch.library.custom_op(
    "convmixer::block",
    mutates_args=(),
    schema=f"({_PARAMETERS}, float eps, str activation) -> (Tensor h2, Tensor sums, Tensor h1, Tensor moments)",
)
def block(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    depthwise_weight: torch.Tensor,
    depthwise_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    pointwise_weight: torch.Tensor,
    pointwise_bias: torch.Tensor,
    eps: float,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A block in training.

    Gives h2; the sums, fp32 [2, C], of act(h2) and act(h2)^2; h1; and mean and variance of act(h1), fp32 [2, C].
    Gradients flow through the first two.
    """
    from convmixer.kernels import block_launch, depthwise_launch
    from convmixer.kernels.depthwise_launch import Normalise

    of_x = Normalise(scale, shift, activation)
    planes, sums = depthwise_launch.depthwise(
        x.transpose(0, 1), depthwise_weight, depthwise_bias, prologue=of_x, statistics=activation
    )
    h1 = planes.transpose(0, 1)
    moments = moments_of(sums, x[0].numel())
    of_h = Normalise(*affine(moments, norm_weight, norm_bias, eps)[:2], activation)
    mixed = block_launch.mix(x, h1, of_x, of_h)
    h2, sums = block_launch.pointwise(mixed, pointwise_weight, pointwise_bias, statistics=activation)
    return h2, sums, h1, torch.stack(moments)


@torch.library.custom_op(
    "convmixer::block_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor sums_grad, {_PARAMETERS}, Tensor h1, Tensor h2, Tensor moments, float eps, "
    "str activation) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def block_backward(
    grad: torch.Tensor,
    sums_grad: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    depthwise_weight: torch.Tensor,
    depthwise_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    pointwise_weight: torch.Tensor,
    pointwise_bias: torch.Tensor,
    h1: torch.Tensor,
    h2: torch.Tensor,
    moments: torch.Tensor,
    eps: float,
    activation: str,
) -> tuple[torch.Tensor, ...]:
    """Gradients of x, scale, shift and the six parameters, from those of h2 and its sums."""
    from convmixer.kernels import block_launch
    from convmixer.kernels.depthwise_launch import Normalise

    count = x[0].numel()
    of_x = Normalise(scale, shift, activation)
    mean, var = moments
    h_scale, h_shift, deviation = affine(Moments(mean, var), norm_weight, norm_bias, eps)
    of_h = Normalise(h_scale, h_shift, activation)

    h2_grad, pointwise_bias_grad = block_launch.activation_grad(grad.contiguous(), h2, sums_grad, activation)
    mixed_grad, mixed, sums = block_launch.pointwise_grad(h2_grad, pointwise_weight, x, h1, of_x, of_h)
    pointwise_weight_grad = h2_grad.flatten(1) @ mixed.flatten(1).t()
    del h2_grad, mixed  # maps of which the next pass makes another

    # BatchNorm backwards, a value a channel: its result's gradient g enters as sum(g) and sum(g * act(h1)).
    norm_bias_grad, product = sums
    centred = product - mean * norm_bias_grad
    var_grad = norm_weight.float() * centred * -0.5 * deviation**3
    slope = torch.stack((h_scale, 2 * var_grad / count, (-h_scale * norm_bias_grad - 2 * var_grad * mean) / count))
    x_grad, depthwise_weight_grad, sums = block_launch.depthwise_block_grad(
        mixed_grad, h1, x, depthwise_weight, slope, of_x
    )
    # Copies, since results of an operator must not share memory.
    depthwise_bias_grad, shift_grad, scale_grad = (row.clone() for row in sums)
    return (
        x_grad,
        scale_grad,
        shift_grad,
        depthwise_weight_grad.to(depthwise_weight.dtype),
        depthwise_bias_grad.to(depthwise_bias.dtype),
        (centred * deviation).to(norm_weight.dtype),
        norm_bias_grad.to(norm_bias.dtype, copy=True),
        pointwise_weight_grad.view_as(pointwise_weight).to(pointwise_weight.dtype),
        pointwise_bias_grad.to(pointwise_bias.dtype),
    )


@torch.library.custom_op(
    "convmixer::block_inference", mutates_args=(), schema=f"({_PARAMETERS}, str activation) -> Tensor"
)
def block_inference(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    depthwise_weight: torch.Tensor,
    depthwise_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    pointwise_weight: torch.Tensor,
    pointwise_bias: torch.Tensor,
    activation: str,
) -> torch.Tensor:
    """A block in evaluation: h2. norm_weight and norm_bias are BatchNorm's scale and shift (`batch_norm.affine`)."""
    from convmixer.kernels import block_launch, depthwise_launch
    from convmixer.kernels.depthwise_launch import Normalise

    mixed, _ = depthwise_launch.depthwise(
        x.transpose(0, 1),
        depthwise_weight,
        depthwise_bias,
        prologue=Normalise(scale, shift, activation),
        mix=Normalise(norm_weight, norm_bias, activation),
    )
    return block_launch.pointwise(mixed.transpose(0, 1), pointwise_weight, pointwise_bias)[0]


def _block_shape(x: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
    sums = x.new_empty((2, x.shape[0]), dtype=torch.float32)
    return torch.empty_like(x), sums, torch.empty_like(x), torch.empty_like(sums)


def _backward_shape(grad: torch.Tensor, sums_grad: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in others[:9])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    h2, _, h1, moments = output
    *tensors, eps, activation = inputs
    ctx.save_for_backward(*tensors, h1, h2, moments)
    ctx.eps, ctx.activation = eps, activation
    ctx.mark_non_differentiable(h1, moments)
    # Else torch makes gradients of zeros, as large as the maps, for h1 and the moments.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, sums_grad: torch.Tensor | None, *_: None) -> tuple[Any, ...]:
    h2 = ctx.saved_tensors[-2]
    grad = torch.zeros_like(h2) if grad is None else grad
    sums_grad = h2.new_zeros((2, h2.shape[0]), dtype=torch.float32) if sums_grad is None else sums_grad
    return (*block_backward(grad, sums_grad.contiguous(), *ctx.saved_tensors, ctx.eps, ctx.activation), None, None)


block.register_fake(_block_shape)
block_backward.register_fake(_backward_shape)
block_inference.register_fake(lambda x, *others: torch.empty_like(x))
block.register_autograd(_backward, setup_context=_remember)
