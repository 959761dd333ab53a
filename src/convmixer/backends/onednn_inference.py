"""Inference on a CPU by oneDNN's fused convolutions, with no compiler: the operators that torch's inductor calls.

Three things make it fast. Weights are repacked once into the layout that the processor wants; a convolution and its
activation are one pass over the memory; and each core takes images of its own, so that an image's activations stay in
its cache and no core waits for another within a network.

BatchNorm follows the activation, so it cannot be folded into the convolution before it. After the depthwise convolution
it is y = x + s * h + t: the shift t goes through the pointwise convolution, which has no border, into its bias; the
scale s is applied where the residual is added. After the pointwise convolution it stays a scale and a shift, because
the shift must not reach the next depthwise convolution's zero border.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import torch
from torch import Tensor, nn

from convmixer.model import Block, ConvMixer

CACHE_BYTES = 2 << 20


@dataclass(frozen=True)
class _Convolution:
    """A convolution with its activation: repacked weight, bias [D], and how it is applied."""

    weight: Tensor
    bias: Tensor
    padding: int
    stride: int
    groups: int
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        padding, stride = [self.padding] * 2, [self.stride] * 2
        if self.activation == "relu":
            attr, algorithm = "relu", None
        else:
            attr, algorithm = "gelu", "tanh" if self.activation == "gelu_tanh" else "none"
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, padding, stride, [1, 1], self.groups, attr, [], algorithm
        )
        return out


@dataclass(frozen=True)
class _Block:
    depthwise: _Convolution
    scale: Tensor
    pointwise: _Convolution
    pointwise_scale: Tensor
    pointwise_shift: Tensor


class PackedConvMixer(nn.Module):
    """Images [N, in_chans, height, width] -> logits fp32 [N, num_classes], by a copy of the model's weights.

    It computes in `dtype` (fp32 or bf16) whatever autocast says. Raises what torch raises where its build lacks
    oneDNN or these operators.
    """

    def __init__(self, model: ConvMixer, image_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        arch = model.arch
        assert arch.kernel_size % 2 == 1, "an even kernel's padding has two different sides"
        self.dtype, self.arch = dtype, arch
        self.workers = torch.get_num_threads()
        side = image_size // arch.patch_size
        # Images that a core takes at once: as many as its cache holds activations of.
        self.part = max(1, CACHE_BYTES // (arch.dim * side * side * dtype.itemsize))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            self.stem = self._convolution(model.stem.conv, _bias(model.stem.conv), image_size)
            self.stem_scale, self.stem_shift = (self._channels(t) for t in scale_and_shift(model.stem.norm))
            self.blocks = [self._block(block, side) for block in model.blocks if isinstance(block, Block)]
            self.head = (model.head.weight.detach().clone(), model.head.bias.detach().clone())
        self._pool: ThreadPoolExecutor | None = None

    def _block(self, block: Block, side: int) -> _Block:
        scale, shift = scale_and_shift(block.depthwise_norm)
        bias = _bias(block.pointwise) + block.pointwise.weight.flatten(1) @ shift
        pointwise_scale, pointwise_shift = scale_and_shift(block.pointwise_norm)
        return _Block(
            self._convolution(block.depthwise, _bias(block.depthwise), side),
            self._channels(scale),
            self._convolution(block.pointwise, bias, side),
            self._channels(pointwise_scale),
            self._channels(pointwise_shift),
        )

    def _convolution(self, conv: nn.Conv2d, bias: Tensor, side: int) -> _Convolution:
        padding = conv.kernel_size[0] // 2 if conv.padding == "same" else 0
        stride, groups = conv.stride[0], conv.groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.detach().to(self.dtype),
            [padding] * 2,
            [stride] * 2,
            [1, 1],
            groups,
            [self.part, conv.in_channels, side, side],
        )
        return _Convolution(packed, bias.detach().to(self.dtype), padding, stride, groups, self.arch.activation)

    def _channels(self, values: Tensor) -> Tensor:
        return values.detach().to(self.dtype).view(1, -1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        if len(images) < self.workers:
            # Too few for a part each: all cores work on one part after the other.
            return torch.cat([self._logits(part) for part in images.split(self.part)])
        parts = images.split(min(self.part, -(-len(images) // self.workers)))
        if self.workers == 1:
            return torch.cat([self._logits(part) for part in parts])
        return torch.cat(list(self._threads().map(self._logits, parts)))

    def _logits(self, images: Tensor) -> Tensor:
        # inference_mode and autocast are set per thread.
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            features = self._features(images.to(self.dtype)).float()
            return nn.functional.linear(features, *self.head)

    def _features(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = torch.addcmul(self.stem_shift, x, self.stem_scale)
        for block in self.blocks:
            x.addcmul_(block.depthwise(x), block.scale)
            torch.addcmul(block.pointwise_shift, block.pointwise(x), block.pointwise_scale, out=x)
        return x.mean(dim=(2, 3), dtype=torch.float32)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            # How many threads an operator uses is a setting of the thread that calls it; but torch takes the last
            # value set for threads that it has not seen yet: set it back once all workers have started.
            self._pool = ThreadPoolExecutor(self.workers, "packed", lambda: torch.set_num_threads(1))
            started = Barrier(self.workers)
            list(self._pool.map(lambda _: started.wait(), range(self.workers)))
            torch.set_num_threads(self.workers)
        return self._pool


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def scale_and_shift(norm: nn.BatchNorm2d) -> Iterator[Tensor]:
    """Scale and shift, [D] each, that BatchNorm is in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    yield scale
    yield norm.bias - norm.running_mean * scale
