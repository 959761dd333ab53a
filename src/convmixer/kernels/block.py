"""A whole ConvMixer on the fused kernels: functions over the module's own parameters and buffers.

The result is that of `model(images)`; parameters, names and `state_dict` stay as they are. In training mode BatchNorm's
running statistics move as nn.BatchNorm2d moves them. fp32 sums are taken in another order than torch's, and 16-bit
maps are rounded in fewer places.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from convmixer.kernels.batch_norm import Moments, moments_of, running_moments, scale_and_shift, update_running
from convmixer.kernels.block_operators import block, block_inference
from convmixer.kernels.limits import log_once, reason_against, slow_rows
from convmixer.kernels.plan import Plan
from convmixer.kernels.stem_operators import patch_columns, patch_weight, pool, stem
from convmixer.model import Block, ConvMixer

DEFAULT = Plan()


def reason_against_fused(model: ConvMixer, images: torch.Tensor) -> str | None:
    """Why `fused_forward` would leave this model and these images to torch; None where it would not."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if any(type(norm) is not nn.BatchNorm2d for norm in norms):
        return "they need plain BatchNorm, and this model's is synchronised between processes"
    if any(norm.training != model.training for norm in norms):
        return "they need BatchNorm in one mode throughout, and some of this model's is frozen"
    if not all(norm.affine and norm.track_running_stats for norm in norms):
        return "they need BatchNorm with scale, shift and running statistics"
    if not model.training and torch.is_grad_enabled() and _wants_gradient(model, images):
        return "they have no gradient in evaluation mode"
    return reason_against(images.device, _dtype(images), model.arch.kernel_size)


def fused_forward(model: ConvMixer, images: torch.Tensor, plan: Plan = DEFAULT) -> torch.Tensor:
    """logits, [N, num_classes], of normalised images, [N, in_chans, height, width], in the model's mode.

    In training mode it is differentiable to all parameters and updates the running statistics; in evaluation mode it
    has no gradient. Maps have the type of autocast where that is on, else that of the images. `plan` says by which
    forms. Where the kernels do not apply, the model itself answers, and the reason is logged once.
    """
    logits: torch.Tensor
    reason = reason_against_fused(model, images)
    if reason is not None:
        log_once(f"fused ConvMixer: torch's operators instead of our kernels: {reason}")
        logits = model(images)
        return logits
    slow = slow_rows(images.shape[-1], model.arch.patch_size)
    if slow is not None:
        log_once(f"fused ConvMixer: {slow}")
    if images.requires_grad:
        plan = replace(plan, ends="torch")  # our stem has no gradient of its images
    dtype = _dtype(images)  # before autocast, which knows the type, is off
    features = _training_features if model.training else _inference_features
    with torch.autocast(images.device.type, enabled=False):
        pooled = features(model, images, dtype, plan)
    logits = model.head(pooled.to(model.head.weight.dtype))
    return logits


def _training_features(model: ConvMixer, images: torch.Tensor, dtype: torch.dtype, plan: Plan) -> torch.Tensor:
    activation, forms = model.arch.activation, str(plan)
    x, x_bias, sums = run_stem(model, images, dtype, plan)
    count = x[0].numel()
    scale, shift = _batch_scale_and_shift(model.stem.norm, sums, count)
    for layer in _blocks(model):
        assert layer.depthwise.bias is not None
        assert layer.pointwise.bias is not None
        norm = layer.depthwise_norm
        x, sums, _, _, moments = block(
            x,
            x_bias,
            scale,
            shift,
            layer.depthwise.weight,
            layer.depthwise.bias,
            norm.weight,
            norm.bias,
            layer.pointwise.weight,
            layer.pointwise.bias,
            norm.eps,
            activation,
            forms,
        )
        update_running(norm, Moments(moments[0], moments[1]), count)
        scale, shift = _batch_scale_and_shift(layer.pointwise_norm, sums, count)
        x_bias = layer.pointwise.bias.detach()
    return scale * run_pool(model, x, x_bias, plan) + shift


@torch.no_grad()
def _inference_features(model: ConvMixer, images: torch.Tensor, dtype: torch.dtype, plan: Plan) -> torch.Tensor:
    activation, forms = model.arch.activation, str(plan)
    x, x_bias = _stem_product(model, images, dtype), model.stem.conv.bias
    scale, shift = _running_scale_and_shift(model.stem.norm)
    for layer in _blocks(model):
        assert layer.depthwise.bias is not None
        assert layer.pointwise.bias is not None
        x = block_inference(
            x,
            x_bias,
            scale,
            shift,
            layer.depthwise.weight,
            layer.depthwise.bias,
            *_running_scale_and_shift(layer.depthwise_norm),
            layer.pointwise.weight,
            layer.pointwise.bias,
            activation,
            forms,
        )
        scale, shift = _running_scale_and_shift(layer.pointwise_norm)
        x_bias = layer.pointwise.bias
    return scale * run_pool(model, x, x_bias, plan) + shift


def _blocks(model: ConvMixer) -> list[Block]:
    return [layer for layer in model.blocks if isinstance(layer, Block)]


def _dtype(images: torch.Tensor) -> torch.dtype:
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype


def _wants_gradient(model: ConvMixer, images: torch.Tensor) -> bool:
    return images.requires_grad or any(parameter.requires_grad for parameter in model.parameters())


def _stem_product(model: ConvMixer, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The patch embedding, [C, N, H, W], as one product and without its bias."""
    weight = patch_weight(model.stem.conv.weight).to(dtype)
    columns = patch_columns(images, model.arch.patch_size, dtype)
    return (weight @ columns.flatten(1)).view(-1, *columns.shape[1:])


def run_stem(
    model: ConvMixer, images: torch.Tensor, dtype: torch.dtype, plan: Plan
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """In training: the patch embedding, the bias that its readers add, and sums, fp32 [2, C], of act and act^2."""
    conv = model.stem.conv
    assert conv.bias is not None
    if plan.ends == "kernels":
        x, sums, _ = stem(images, conv.weight, conv.bias, dtype, model.arch.activation, str(plan))
        return x, conv.bias.detach(), sums
    x = _stem_product(model, images, dtype) + conv.bias.to(dtype)[:, None, None, None]
    activated = model.stem.act(x.float())
    return x, None, torch.stack((activated.sum(dim=(1, 2, 3)), activated.square().sum(dim=(1, 2, 3))))


def run_pool(model: ConvMixer, x: torch.Tensor, bias: torch.Tensor | None, plan: Plan) -> torch.Tensor:
    """The mean of act(x + bias) over each map, fp32 [N, C]."""
    assert bias is not None
    if plan.ends == "kernels":
        return pool(x, bias, model.arch.activation, str(plan))
    means: torch.Tensor = model.stem.act(x + bias.to(x.dtype)[:, None, None, None]).mean((2, 3), dtype=torch.float32)
    return means.t()


def _batch_scale_and_shift(norm: nn.BatchNorm2d, sums: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    moments = moments_of(sums, count)
    update_running(norm, Moments(moments.mean.detach(), moments.var.detach()), count)
    scale, shift, _ = scale_and_shift(moments, norm.weight, norm.bias, norm.eps)
    return scale, shift


def _running_scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    scale, shift, _ = scale_and_shift(running_moments(norm), norm.weight, norm.bias, norm.eps)
    return scale, shift
