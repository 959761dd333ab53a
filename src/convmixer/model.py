"""ConvMixer: a patch embedding, then `depth` blocks of a residual depthwise and a pointwise convolution.

Each convolution is followed by the activation and then BatchNorm, in this order. One naming of the parameters holds
throughout the package; other layouts are mapped to it in `convmixer.weights`. Shapes below: N images, D = dim,
H and W in patches.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from convmixer.arch import Activation, Architecture, architecture
from convmixer.recompute import recomputed


def make_activation(name: str) -> nn.Module:
    """`relu`, `gelu` (exact, by erf) or `gelu_tanh` (the approximation that MindSpore's nn.GELU computes)."""
    if name == "relu":
        return nn.ReLU()
    return nn.GELU(approximate="tanh" if name == "gelu_tanh" else "none")


class Stem(nn.Module):
    """Patch embedding: [N, in_chans, height, width] -> [N, D, height // patch, width // patch]."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.conv = nn.Conv2d(arch.in_chans, arch.dim, arch.patch_size, stride=arch.patch_size)
        self.act = make_activation(arch.activation)
        self.norm = nn.BatchNorm2d(arch.dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.act(self.conv(images)))
        return out


class Block(nn.Module):
    """[N, D, H, W] -> [N, D, H, W]: depthwise convolution with a residual, then a pointwise one."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(arch.dim, arch.dim, arch.kernel_size, groups=arch.dim, padding="same")
        self.depthwise_norm = nn.BatchNorm2d(arch.dim)
        self.pointwise = nn.Conv2d(arch.dim, arch.dim, 1)
        self.pointwise_norm = nn.BatchNorm2d(arch.dim)
        self.act = make_activation(arch.activation)

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """`keep` [N]: the factor of the residual branch of each image, 0 where drop path leaves it out."""
        branch = self.depthwise_norm(self.act(self.depthwise(x)))
        if keep is not None:
            branch = (branch * keep[:, None, None, None]).to(branch.dtype)
        x = x + branch
        out: torch.Tensor = self.pointwise_norm(self.act(self.pointwise(x)))
        return out


class ConvMixer(nn.Module):
    """Images [N, in_chans, height, width], normalised -> logits [N, num_classes]. `arch` is its shape.

    `recompute`, False at first: in training mode only each block's input is kept for the backward pass.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch, self.recompute = arch, False
        self.stem = Stem(arch)
        self.blocks = nn.ModuleList(Block(arch) for _ in range(arch.depth))
        self.head = nn.Linear(arch.dim, arch.num_classes)

    def feature_maps(self, images: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """What is pooled: [N, D, height / patch, width / patch]. `keep`: as `forward` has it."""
        x = self.stem(images)
        recompute = self.recompute and self.training
        for number, block in enumerate(self.blocks):
            run = block if keep is None else partial(block, keep=keep[number])
            x = recomputed(block, run, x) if recompute else run(x)
        return x

    def features(self, images: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Pooled features before the head, [N, D]."""
        return self.feature_maps(images, keep).mean(dim=(2, 3))

    def forward(self, images: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """`keep` [depth, N]: the factors of the blocks' residual branches in training with drop path."""
        logits: torch.Tensor = self.head(self.features(images, keep))
        return logits


def create_model(
    arch: str,
    *,
    kernel_size: int | None = None,
    patch_size: int | None = None,
    activation: Activation | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
) -> ConvMixer:
    """A ConvMixer with torch's default initialisation (as the authors'), in eval mode.

    `arch`: `convmixer_768_32`, `convmixer_1024_20`, `convmixer_1536_20` or any `convmixer_<dim>_<depth>`; None keeps
    the variant's value. `activation`: relu, gelu or gelu_tanh. Raises UserError for a name of another form.
    """
    shape = architecture(
        arch,
        kernel_size=kernel_size,
        patch_size=patch_size,
        activation=activation,
        num_classes=num_classes,
        in_chans=in_chans,
    )
    return ConvMixer(shape).eval()
