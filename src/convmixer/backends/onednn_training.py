"""Training on a CPU without a compiler: the same network, its convolutions put so that oneDNN has a fast path for each.

Channels-last throughout. The pointwise convolution is a matrix product over [N * H * W, D]. For the depthwise one, the
data gradient is a forward convolution with the turned filter. So is the weight gradient, for which oneDNN has no fast
code: with the input as the image and the gradient, a map as large, as the filter, its k x k results are the sums over
a map (4 ms instead of 45 for 64 images of 256 channels, 16 x 16, k = 5 in bf16 on two cores; 6 instead of 25 in fp32).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convmixer.model import Block, ConvMixer
from convmixer.recompute import recomputed

# Of the input that the weight gradient takes at a time: the maps that it makes of it stay in the cache.
CHUNK_BYTES = 2 << 20


def training_forward(model: ConvMixer, images: Tensor) -> Tensor:
    """logits [N, num_classes] of images [N, in_chans, height, width]: those of `model(images)`, differentiable once.

    `model.recompute` holds here too. Only for a kernel of odd side; quick if the parameters are in channels_last
    layout.
    """
    x = model.stem(images.contiguous(memory_format=torch.channels_last))
    for block in model.blocks:
        forward = partial(_block, block)
        x = recomputed(block, forward, x) if model.recompute else forward(x)
    # The mean over rows [N, H * W, D] hands its gradient back channels last; that over (2, 3) of x does not, and sends
    # BatchNorm's backward pass the slow path (96 ms instead of 6 for the example above).
    logits: Tensor = model.head(x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1))
    return logits


def _block(block: Block | Any, x: Tensor) -> Tensor:
    x = x + block.depthwise_norm(block.act(depthwise(x, block.depthwise.weight, block.depthwise.bias)))
    out: Tensor = block.pointwise_norm(block.act(pointwise(x, block.pointwise.weight, block.pointwise.bias)))
    return out


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [N, C, H, W] convolved with weight [D, C, 1, 1] -> [N, D, H, W], channels last."""
    n, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n * h * w, c)
    return nn.functional.linear(rows, weight.flatten(1), bias).view(n, h, w, -1).permute(0, 3, 1, 2)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [N, C, H, W] convolved with weight [C, 1, k, k], k odd, stride 1, same padding; in autocast's type if it is on.

    Differentiable once.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    out: Tensor = _Depthwise.apply(x, weight, bias)
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        grad_x = _convolve(grad, weight.flip(2, 3), None) if to_x else None
        grad_weight = weight_gradient(x, grad, weight.shape[-1]) if to_weight else None
        grad_bias = grad.sum(dim=(0, 2, 3)) if to_bias else None
        return grad_x, grad_weight, grad_bias


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return nn.functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def weight_gradient(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """Gradient of a filter [C, 1, k, k] from the input and the output's gradient, both [N, C, H, W], channels last.

    Sums over images are fp32; the result has the type of x.
    """
    images = max(1, CHUNK_BYTES // x[0].nbytes)
    parts = zip(x.split(images), grad.split(images), strict=True)
    total = torch.stack([_weight_gradient(*part, kernel_size) for part in parts]).sum(dim=0)
    return total.t().reshape(-1, 1, kernel_size, kernel_size).to(x.dtype)


def _weight_gradient(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """fp32 [k * k, C] of a few images: each image of each channel is a channel of one image, its gradient the filter.

    Channels last, images x [N, H, W, C] with their axes turned are one [1, H, W, N * C]: rows of C values move whole.
    """
    n, c, h, w = x.shape
    image = x.permute(2, 3, 0, 1).reshape(1, h, w, n * c).permute(0, 3, 1, 2)
    filters = grad.contiguous().view(n * c, 1, h, w)
    out = nn.functional.conv2d(image, filters, padding=kernel_size // 2, groups=n * c)
    return out[0].permute(1, 2, 0).reshape(kernel_size**2, n, c).sum(dim=1, dtype=torch.float32)
