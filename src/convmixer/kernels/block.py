"""A whole ConvMixer on the fused kernels: functions over the module's own parameters and buffers.

The result is that of `model(images)`; parameters, names and `state_dict` stay as they are. In training mode BatchNorm's
running statistics move as nn.BatchNorm2d moves them. fp32 sums are taken in another order than torch's, and 16-bit
maps are rounded in fewer places.
"""

from __future__ import annotations

import torch
from torch import nn

from convmixer.kernels.batch_norm import Moments, affine, moments_of, running_moments, update_running
from convmixer.kernels.block_operators import block, block_inference
from convmixer.kernels.limits import reason_against, say_once
from convmixer.model import Block, ConvMixer


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


def fused_forward(model: ConvMixer, images: torch.Tensor) -> torch.Tensor:
    """logits, [N, num_classes], of normalised images, [N, in_chans, height, width], in the model's mode.

    In training mode it is differentiable to all parameters and updates the running statistics; in evaluation mode it
    has no gradient. Maps have the type of autocast where that is on, else that of the images. Where the kernels do not
    apply, the model itself answers, and the reason is said once.
    """
    logits: torch.Tensor
    reason = reason_against_fused(model, images)
    if reason is not None:
        say_once(f"fused ConvMixer: torch's operators instead of our kernels: {reason}")
        logits = model(images)
        return logits
    features = _training_features if model.training else _inference_features
    images = images.to(_dtype(images))  # before autocast is off, which tells the type
    with torch.autocast(images.device.type, enabled=False):
        pooled = features(model, images)
    logits = model.head(pooled.to(model.head.weight.dtype))
    return logits


def _training_features(model: ConvMixer, images: torch.Tensor) -> torch.Tensor:
    activation = model.arch.activation
    x = _stem_convolution(model, images)
    count = x[0].numel()
    activated = model.stem.act(x.float())
    sums = torch.stack((activated.sum(dim=(1, 2, 3)), activated.square().sum(dim=(1, 2, 3))))
    del activated
    scale, shift = _batch_affine(model.stem.norm, sums, count)
    for layer in _blocks(model):
        assert layer.depthwise.bias is not None
        assert layer.pointwise.bias is not None
        norm = layer.depthwise_norm
        x, sums, _, moments = block(
            x,
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
        )
        update_running(norm, Moments(moments[0], moments[1]), count)
        scale, shift = _batch_affine(layer.pointwise_norm, sums, count)
    return _pool(model, x, scale, shift)


@torch.no_grad()
def _inference_features(model: ConvMixer, images: torch.Tensor) -> torch.Tensor:
    x = _stem_convolution(model, images)
    scale, shift = _running_affine(model.stem.norm)
    for layer in _blocks(model):
        assert layer.depthwise.bias is not None
        assert layer.pointwise.bias is not None
        x = block_inference(
            x,
            scale,
            shift,
            layer.depthwise.weight,
            layer.depthwise.bias,
            *_running_affine(layer.depthwise_norm),
            layer.pointwise.weight,
            layer.pointwise.bias,
            model.arch.activation,
        )
        scale, shift = _running_affine(layer.pointwise_norm)
    return _pool(model, x, scale, shift)


def _blocks(model: ConvMixer) -> list[Block]:
    return [layer for layer in model.blocks if isinstance(layer, Block)]


def _dtype(images: torch.Tensor) -> torch.dtype:
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype


def _wants_gradient(model: ConvMixer, images: torch.Tensor) -> bool:
    return images.requires_grad or any(parameter.requires_grad for parameter in model.parameters())


def _stem_convolution(model: ConvMixer, images: torch.Tensor) -> torch.Tensor:
    """The patch embedding as one product, which gives the layout of the blocks: [C, N, H, W]."""
    conv, patch = model.stem.conv, model.arch.patch_size
    n, channels, height, width = images.shape[0], images.shape[1], images.shape[2] // patch, images.shape[3] // patch
    patches = images[:, :, : height * patch, : width * patch].reshape(n, channels, height, patch, width, patch)
    columns = patches.permute(1, 3, 5, 0, 2, 4).reshape(channels * patch * patch, n * height * width)
    assert conv.bias is not None
    out = conv.weight.flatten(1).to(images.dtype) @ columns + conv.bias.to(images.dtype)[:, None]
    return out.view(-1, n, height, width)


def _batch_affine(norm: nn.BatchNorm2d, sums: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    moments = moments_of(sums, count)
    update_running(norm, Moments(moments.mean.detach(), moments.var.detach()), count)
    scale, shift, _ = affine(moments, norm.weight, norm.bias, norm.eps)
    return scale, shift


def _running_affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    scale, shift, _ = affine(running_moments(norm), norm.weight, norm.bias, norm.eps)
    return scale, shift


def _pool(model: ConvMixer, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The last BatchNorm and the mean over each map, fp32 [N, C]: a mean can be taken before a scale and a shift."""
    means: torch.Tensor = model.stem.act(x).mean(dim=(2, 3), dtype=torch.float32)
    return (scale[:, None] * means + shift[:, None]).t()
