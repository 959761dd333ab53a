"""ConvMixer as a MindSpore cell whose parameters have the model zoo's names; imported only where MindSpore is there."""

from __future__ import annotations

from typing import Any

from mindspore import nn

from convmixer.arch import Architecture


class Residual(nn.Cell):
    """x + fn(x)."""

    def __init__(self, fn: nn.Cell) -> None:
        super().__init__()
        self.fn = fn

    def construct(self, x: Any) -> Any:
        return x + self.fn(x)


class MeanPool(nn.Cell):
    """[N, D, H, W] -> [N, D]."""

    def construct(self, x: Any) -> Any:
        return x.mean((2, 3))


class Network(nn.Cell):
    """Images [N, in_chans, height, width], normalised -> logits [N, num_classes]; see `convmixer.model`."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        stem = nn.Conv2d(
            arch.in_chans, arch.dim, arch.patch_size, stride=arch.patch_size, pad_mode="valid", has_bias=True
        )
        self.network = nn.SequentialCell(
            stem,
            _activation(arch),
            nn.BatchNorm2d(arch.dim),
            *(_block(arch) for _ in range(arch.depth)),
            MeanPool(),
            nn.Flatten(),
            nn.Dense(arch.dim, arch.num_classes),
        )

    def construct(self, images: Any) -> Any:
        return self.network(images)


def _block(arch: Architecture) -> nn.Cell:
    depthwise = nn.Conv2d(arch.dim, arch.dim, arch.kernel_size, group=arch.dim, pad_mode="same", has_bias=True)
    return nn.SequentialCell(
        Residual(nn.SequentialCell(depthwise, _activation(arch), nn.BatchNorm2d(arch.dim))),
        nn.Conv2d(arch.dim, arch.dim, 1, pad_mode="valid", has_bias=True),
        _activation(arch),
        nn.BatchNorm2d(arch.dim),
    )


def _activation(arch: Architecture) -> nn.Cell:
    return nn.ReLU() if arch.activation == "relu" else nn.GELU(approximate=arch.activation == "gelu_tanh")
