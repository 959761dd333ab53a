"""A ConvMixer block as torch operators, from one pointwise convolution's raw product to the next one's.

A block's input is not the map z that its module takes, but x, x_bias, scale and shift with
z = scale * act(x + x_bias) + shift: bias, activation and BatchNorm of the layer before happen when x is read. Likewise
it gives its pointwise convolution's product, without its bias, with the sums that make the statistics of the BatchNorm
behind it. So each map goes through memory once, and any library's product will do.

A bias enters whatever is made of its map as the map does. So its gradient is the sum of the map's, which the operator
that made the map takes; as x_bias it has none.

Maps are contiguous [C, N, H, W]; of those a block makes, it keeps what its plan says: h1 and h2 (its two convolutions'
outputs), the mixed map too, or h2 alone, with which it makes h1 again by the same kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from convmixer.kernels.batch_norm import Moments, moments_of, norm_backward, scale_and_shift
from convmixer.kernels.plan import Plan

if TYPE_CHECKING:
    from convmixer.kernels.depthwise_launch import Normalise

_PARAMETERS = (
    "Tensor x, Tensor? x_bias, Tensor scale, Tensor shift, Tensor depthwise_weight, Tensor depthwise_bias, "
    "Tensor norm_weight, Tensor norm_bias, Tensor pointwise_weight, Tensor pointwise_bias"
)


@torch.library.custom_op(
    "convmixer::block",
    mutates_args=(),
    schema=f"({_PARAMETERS}, float eps, str activation, str plan) -> "
    "(Tensor h2, Tensor sums, Tensor h1, Tensor mixed, Tensor moments)",
)
def block(
    x: torch.Tensor,
    x_bias: torch.Tensor | None,
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
    plan: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A block in training.

    Gives h2; the sums, fp32 [2, C], of act(h2 + pointwise_bias) and its square; h1 and the mixed map, empty where the
    plan does not keep them; and mean and variance of act(h1), fp32 [2, C]. Gradients flow through the first two.
    """
    from convmixer.kernels import elementwise_launch, pointwise_launch
    from convmixer.kernels.depthwise_launch import Normalise

    forms = Plan.parse(plan)
    of_x = Normalise(scale, shift, activation, x_bias)
    h1, sums = _depthwise_half(x, of_x, depthwise_weight, depthwise_bias, forms)
    moments = moments_of(sums, x[0].numel())
    of_h = Normalise(*scale_and_shift(moments, norm_weight, norm_bias, eps)[:2], activation)
    mixed = elementwise_launch.mix(x, h1, of_x, of_h, erf=forms.erf)
    h2, sums = pointwise_launch.forward(mixed, pointwise_weight, pointwise_bias, activation, forms)
    keeps_h1, keeps_mixed = _kept(forms)
    nothing = x.new_empty(0)
    return (
        h2,
        sums,
        h1 if keeps_h1 else nothing,
        mixed if keeps_mixed else torch.empty_like(nothing),
        torch.stack(moments),
    )


@torch.library.custom_op(
    "convmixer::block_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor sums_grad, {_PARAMETERS}, Tensor h1, Tensor mixed, Tensor h2, Tensor moments, "
    "float eps, str activation, str plan) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def block_backward(
    grad: torch.Tensor,
    sums_grad: torch.Tensor,
    x: torch.Tensor,
    x_bias: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    depthwise_weight: torch.Tensor,
    depthwise_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    pointwise_weight: torch.Tensor,
    pointwise_bias: torch.Tensor,
    h1: torch.Tensor,
    mixed: torch.Tensor,
    h2: torch.Tensor,
    moments: torch.Tensor,
    eps: float,
    activation: str,
    plan: str,
) -> tuple[torch.Tensor, ...]:
    """Gradients of x, scale, shift and the six parameters, from those of h2 and its sums."""
    from convmixer.kernels import block_launch, elementwise_launch, pointwise_launch
    from convmixer.kernels.depthwise_launch import Normalise

    forms = Plan.parse(plan)
    of_x = Normalise(scale, shift, activation, x_bias)
    of_act = Moments(*moments)
    h_scale, h_shift, deviation = scale_and_shift(of_act, norm_weight, norm_bias, eps)
    of_h = Normalise(h_scale, h_shift, activation)
    if forms.keep == "inputs":
        # The same launch, sums and all, so that h1 is the same to the bit.
        h1 = _depthwise_half(x, of_x, depthwise_weight, depthwise_bias, forms)[0]

    h2_grad, pointwise_bias_grad = elementwise_launch.activation_grad(
        grad, h2, pointwise_bias, sums_grad, activation, erf=forms.erf
    )
    mixed_grad, sums, pointwise_weight_grad = pointwise_launch.backward(
        h2_grad, pointwise_weight, x, h1, mixed if forms.keep == "mixed" else None, of_x, of_h, forms
    )
    del h2_grad  # a map of which the next pass makes another
    count = x[0].numel()
    norm_weight_grad, norm_bias_grad, coefficients = norm_backward(sums, of_act, norm_weight, h_scale, deviation, count)
    tiles = forms.depthwise_tiles("block_grad", *_images_and_width(x), x.dtype)
    x_grad, depthwise_weight_grad, sums = block_launch.depthwise_block_grad(
        mixed_grad, h1, x, depthwise_weight, coefficients, of_x, erf=forms.erf, tiles=tiles
    )
    # Copies, since results of an operator must not share memory.
    depthwise_bias_grad, shift_grad, scale_grad = (row.clone() for row in sums)
    return (
        x_grad,
        scale_grad,
        shift_grad,
        depthwise_weight_grad.to(depthwise_weight.dtype),
        depthwise_bias_grad.to(depthwise_bias.dtype),
        norm_weight_grad.to(norm_weight.dtype),
        norm_bias_grad.to(norm_bias.dtype, copy=True),
        pointwise_weight_grad.to(pointwise_weight.dtype),
        pointwise_bias_grad.to(pointwise_bias.dtype),
    )


@torch.library.custom_op(
    "convmixer::block_inference", mutates_args=(), schema=f"({_PARAMETERS}, str activation, str plan) -> Tensor"
)
def block_inference(
    x: torch.Tensor,
    x_bias: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    depthwise_weight: torch.Tensor,
    depthwise_bias: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    pointwise_weight: torch.Tensor,
    pointwise_bias: torch.Tensor,
    activation: str,
    plan: str,
) -> torch.Tensor:
    """A block in evaluation: h2. norm_weight and norm_bias are those of `batch_norm.scale_and_shift`."""
    from convmixer.kernels import depthwise_launch, pointwise_launch
    from convmixer.kernels.depthwise_launch import Normalise

    forms = Plan.parse(plan)
    planes, _ = depthwise_launch.depthwise(
        x.transpose(0, 1),
        depthwise_weight,
        depthwise_bias,
        prologue=Normalise(scale, shift, activation, x_bias),
        mix=Normalise(norm_weight, norm_bias, activation),
        erf=forms.erf,
        tiles=forms.depthwise_tiles("depthwise", *_images_and_width(x), x.dtype),
    )
    mixed = planes.transpose(0, 1)
    if forms.products == "triton":
        return pointwise_launch.pointwise(mixed, pointwise_weight, tiles=forms.pointwise_tiles("pointwise"))[0]
    return pointwise_launch.product(pointwise_weight.flatten(1), mixed)


def _depthwise_half(
    x: torch.Tensor, of_x: Normalise, weight: torch.Tensor, bias: torch.Tensor, plan: Plan
) -> tuple[torch.Tensor, torch.Tensor]:
    """h1, and the sums, fp32 [2, C], of act(h1) and its square."""
    from convmixer.kernels import depthwise_launch

    tiles = plan.depthwise_tiles("depthwise", *_images_and_width(x), x.dtype)
    planes, sums = depthwise_launch.depthwise(
        x.transpose(0, 1), weight, bias, prologue=of_x, statistics=of_x.activation, erf=plan.erf, tiles=tiles
    )
    return planes.transpose(0, 1), sums


def _images_and_width(x: torch.Tensor) -> tuple[int, int]:
    return x.shape[1], x.shape[3]


def _kept(plan: Plan) -> tuple[bool, bool]:
    """Whether h1, and whether the mixed map, is kept for the backward pass."""
    return plan.keep != "inputs", plan.keep == "mixed"


def _block_shape(x: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
    sums = x.new_empty((2, x.shape[0]), dtype=torch.float32)
    h1, mixed = (torch.empty_like(x) if kept else x.new_empty(0) for kept in _kept(Plan.parse(others[-1])))
    return torch.empty_like(x), sums, h1, mixed, torch.empty_like(sums)


def _backward_shape(
    grad: torch.Tensor, sums_grad: torch.Tensor, x: torch.Tensor, x_bias: torch.Tensor | None, *others: Any
) -> tuple[torch.Tensor, ...]:
    tensors = (x, *others[:8])
    return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    h2, _, h1, mixed, moments = output
    *tensors, eps, activation, plan = inputs
    ctx.save_for_backward(*tensors, h1, mixed, h2, moments)
    ctx.forms = eps, activation, plan
    ctx.mark_non_differentiable(h1, mixed, moments)
    # Else torch makes gradients of zeros, as large as the maps, for h1 and the moments.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: torch.Tensor | None, sums_grad: torch.Tensor | None, *_: None) -> tuple[Any, ...]:
    h2 = ctx.saved_tensors[-2]
    grad = torch.zeros_like(h2) if grad is None else grad
    sums_grad = h2.new_zeros((2, h2.shape[0]), dtype=torch.float32) if sums_grad is None else sums_grad
    x_grad, *others = block_backward(grad.contiguous(), sums_grad.contiguous(), *ctx.saved_tensors, *ctx.forms)
    return (x_grad, None, *others, None, None, None)


block.register_fake(_block_shape)
block_backward.register_fake(_backward_shape)
block_inference.register_fake(lambda x, *others: torch.empty_like(x))
block.register_autograd(_backward, setup_context=_remember)
