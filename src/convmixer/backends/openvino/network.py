"""Inference by OpenVINO, where it is installed: the network as a graph, from the model's own parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from torch import Tensor, nn

from convmixer.backends.onednn_inference import scale_and_shift
from convmixer.backends.openvino.engine import OpenVinoEngine
from convmixer.model import Block, ConvMixer


class OpenVinoConvMixer(nn.Module):
    """Images [N, in_chans, height, width] -> logits fp32 [N, num_classes], by a copy of the model's weights.

    It computes in `dtype` (fp32 or bf16) whatever autocast says.
    """

    def __init__(self, model: ConvMixer, image_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            graph = build_graph(model, image_size)
        self.engine = OpenVinoEngine(graph, "bf16" if dtype == torch.bfloat16 else "f32")

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.engine(images.float().contiguous().numpy()))


def build_graph(model: ConvMixer, image_size: int) -> openvino.Model:
    """The network in evaluation mode, for any batch of images of one size."""
    arch = model.arch
    images = ops.parameter([-1, arch.in_chans, image_size, image_size], np.float32, name="images")
    x = _activated(model, model.stem.conv, model.stem.norm, images)
    for block in model.blocks:
        assert isinstance(block, Block)
        x = ops.add(x, _activated(model, block.depthwise, block.depthwise_norm, x))
        x = _activated(model, block.pointwise, block.pointwise_norm, x)
    pooled = ops.reduce_mean(x, np.array([2, 3]), False)
    weight, bias = (_array(tensor) for tensor in (model.head.weight, model.head.bias))
    logits = ops.add(ops.matmul(pooled, weight, False, True), bias)
    return openvino.Model([logits], [images], arch.name)


def _activated(model: ConvMixer, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Any) -> Any:
    """Convolution, activation and BatchNorm, which is a scale and a shift of each channel."""
    assert conv.bias is not None
    before = after = [0, 0]
    if conv.padding == "same":
        sides = [side - 1 for side in conv.kernel_size]
        # Of an even side torch puts the odd one behind.
        before, after = [side // 2 for side in sides], [side - side // 2 for side in sides]
    strides, weight = list(conv.stride), _array(conv.weight)
    if conv.groups == 1:
        x = ops.convolution(x, weight, strides, before, after, [1, 1])
    else:
        x = ops.group_convolution(x, weight[:, None], strides, before, after, [1, 1])
    x = ops.add(x, _array(conv.bias.view(1, -1, 1, 1)))
    if model.arch.activation == "relu":
        x = ops.relu(x)
    else:
        x = ops.gelu(x, "tanh" if model.arch.activation == "gelu_tanh" else "erf")
    scale, shift = (_array(values.view(1, -1, 1, 1)) for values in scale_and_shift(norm))
    return ops.add(ops.multiply(x, scale), shift)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy().copy()
    return array
