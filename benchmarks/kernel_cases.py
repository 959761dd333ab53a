"""What `gpu_kernels.py` runs: each pass of a block on random maps, beside torch's way, and its check in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from convmixer.arch import Architecture
from convmixer.kernels import block_launch, depthwise_launch, elementwise_launch, pointwise_launch, tiling
from convmixer.kernels.depthwise_launch import Normalise

Way = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is timed: maps of memory traffic (of one read or write each) and floating-point operations at least."""

    name: str
    maps: float
    ours: Way
    eager: Way | None = None
    operations: float = 0.0


class Maps:
    """Random maps and parameters of one block, [C, N, H, W], and the ways to compute each pass of it."""

    def __init__(self, arch: Architecture, batch: int, side: int, dtype: torch.dtype, device: torch.device) -> None:
        self.arch, self.k, self.act = arch, arch.kernel_size, arch.activation
        shape = (arch.dim, batch, side, side)
        self.x, self.h, self.grad = (torch.randn(shape, device=device).to(dtype) for _ in range(3))
        self.weight = torch.randn(arch.dim, 1, self.k, self.k, device=device) / self.k
        self.bias = torch.randn(arch.dim, device=device)
        self.matrix = torch.randn(arch.dim, arch.dim, 1, 1, device=device) / arch.dim**0.5
        self.of_x = self.affine()
        self.of_h = self.affine()
        self.slope = torch.randn(3, arch.dim, device=device)

    def affine(self) -> Normalise:
        vectors = torch.randn(2, self.arch.dim, device=self.x.device)
        return Normalise(vectors[0], vectors[1], self.act)

    def planes(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.transpose(0, 1)

    def cases(self) -> Iterator[Case]:
        x, grad, weight = self.planes(self.x), self.planes(self.grad), self.weight
        nchw, nchw_grad, cast = x.contiguous(), grad.contiguous(), weight.to(x.dtype)
        groups, positions = self.arch.dim, self.x[0].numel()
        product = 2.0 * groups * groups * positions

        def backward(mask: list[bool]) -> object:
            half = [self.k // 2] * 2
            return torch.ops.aten.convolution_backward(
                nchw_grad, nchw, cast, None, [1, 1], half, [1, 1], False, [0, 0], groups, mask
            )

        bias, launch = self.bias.to(x.dtype), depthwise_launch
        yield Case(
            "depthwise forward",
            2,
            lambda: launch.depthwise(x, weight, self.bias)[0],
            lambda: F.conv2d(nchw, cast, bias, padding="same", groups=groups),
        )
        yield Case(
            "depthwise data gradient",
            2,
            lambda: launch.depthwise(grad, weight, None, flip=True)[0],
            lambda: backward([True, False, False]),
        )
        yield Case(
            "depthwise weight gradient",
            2,
            lambda: launch.depthwise_weight_grad(x, grad, self.k),
            lambda: backward([False, True, False]),
        )
        yield Case(
            "fused depthwise, statistics",
            2,
            lambda: launch.depthwise(x, weight, self.bias, prologue=self.of_x, statistics=self.act),
        )
        yield Case(
            "fused depthwise, inference",
            2,
            lambda: launch.depthwise(x, weight, self.bias, prologue=self.of_x, mix=self.of_h),
        )
        yield Case("mix", 3, lambda: elementwise_launch.mix(self.x, self.h, self.of_x, self.of_h))
        yield Case(
            "pointwise, statistics",
            2,
            lambda: pointwise_launch.pointwise(self.x, self.matrix, bias=self.bias, statistics=self.act),
            lambda: self.matrix[:, :, 0, 0].to(self.x.dtype) @ self.x.flatten(1),
            product,
        )
        yield Case(
            "activation backwards",
            3,
            lambda: elementwise_launch.activation_grad(self.grad, self.h, None, self.slope, self.act),
        )
        yield Case(
            "pointwise data gradient, sums, mix again",
            5,
            lambda: pointwise_launch.pointwise_grad(self.grad, self.matrix, self.x, self.h, self.of_x, self.of_h),
            operations=product,
        )
        yield Case(
            "depthwise half backwards",
            4,
            lambda: block_launch.depthwise_block_grad(self.grad, self.h, self.x, weight, self.slope, self.of_x),
        )

    def choices(self) -> Iterator[Case]:
        """Each choice of tiles for the passes that have one."""
        x, grad, images, width = self.planes(self.x), self.planes(self.grad), self.x.shape[1], self.x.shape[3]
        launch = depthwise_launch
        for choice in tiling.DEPTHWISE_CHOICES:
            tiles = tiling.fit_depthwise(choice, images, width, x.dtype)
            label = f"{choice.images} images, {choice.warps} warps, {choice.stages} stages"
            yield Case(f"forward: {label}", 2, lambda t=tiles: launch.depthwise(x, self.weight, None, tiles=t)[0])
            yield Case(
                f"fused: {label}",
                2,
                lambda t=tiles: launch.depthwise(
                    x, self.weight, None, prologue=self.of_x, statistics=self.act, tiles=t
                ),
            )
            yield Case(
                f"backwards: {label}",
                4,
                lambda t=tiles: block_launch.depthwise_block_grad(
                    self.grad, self.h, self.x, self.weight, self.slope, self.of_x, tiles=t
                ),
            )
            if choice.stages == 1:
                one = lambda t=tiles: launch.depthwise_weight_grad(x, grad, self.k, tiles=t)  # noqa: E731
                yield Case(f"weight gradient: {label}", 2, one)
        for tile in tiling.POINTWISE_CHOICES:
            label = f"{tile.outputs} x {tile.positions} x {tile.inputs}, {tile.warps} warps, {tile.stages} stages"
            yield Case(
                f"pointwise: {label}",
                2,
                lambda t=tile: pointwise_launch.pointwise(
                    self.x, self.matrix, bias=self.bias, statistics=self.act, tiles=t
                ),
                operations=2.0 * self.arch.dim**2 * self.x[0].numel(),
            )
        for tile in tiling.POINTWISE_GRAD_CHOICES:
            label = f"{tile.outputs} x {tile.positions} x {tile.inputs}, {tile.warps} warps, {tile.stages} stages"
            yield Case(
                f"pointwise gradient: {label}",
                5,
                lambda t=tile: pointwise_launch.pointwise_grad(
                    self.grad, self.matrix, self.x, self.h, self.of_x, self.of_h, tiles=t
                ),
                operations=2.0 * self.arch.dim**2 * self.x[0].numel(),
            )


def error_of(found: object, *expected: torch.Tensor) -> float:
    """The largest error of what was found, or of its first tensors, relative to the largest value of each."""
    tensors = found if isinstance(found, tuple) else (found,)
    return max(
        ((tensor.double() - exact).abs().max() / exact.abs().max()).item()
        for tensor, exact in zip(tensors, expected, strict=False)
    )


def check(arch: Architecture, side: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Error of every pass on few maps of the variant's size, relative to the largest value, against float64."""
    # On a GPU as few as take the tiles that are timed, and a batch that they do not divide.
    channels, batch = (128, 67) if device.type == "cuda" else (2, 2)
    maps = Maps(replace(arch, dim=channels), batch, side, dtype, device)
    x, h, grad = maps.x.double().requires_grad_(), maps.h.double().requires_grad_(), maps.grad.double()
    weight, bias, column = maps.weight.double().requires_grad_(), maps.bias.double(), (slice(None), None, None, None)
    act: Callable[[torch.Tensor], torch.Tensor] = {
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda value: F.gelu(value, approximate="tanh"),
    }[arch.activation]

    def normed(value: torch.Tensor, of: Normalise) -> torch.Tensor:
        return of.scale.double()[column] * act(value) + of.shift.double()[column]

    def conv(value: torch.Tensor, flip: bool = False) -> torch.Tensor:
        taps = weight.flip(-1, -2) if flip else weight
        out = F.conv2d(value.transpose(0, 1), taps, None, padding="same", groups=x.shape[0])
        return out.transpose(0, 1)

    plain = conv(x)
    (weight_grad,) = torch.autograd.grad(plain, weight, grad)
    a, b, d = (row[column] for row in maps.slope.double())
    (slope,) = torch.autograd.grad(act(h).sum(), h)
    mixed = normed(x, maps.of_x) + normed(h, maps.of_h)
    h_grad = slope * (a * grad + b * act(h.detach()) + d)
    z = normed(x, maps.of_x)
    half = torch.autograd.grad((conv(z), z), (x, weight), (h_grad, grad))
    matrix = maps.matrix[:, :, 0, 0].double()
    expected = {
        "depthwise forward": (plain + bias[column]).transpose(0, 1),
        "depthwise data gradient": conv(grad, True).transpose(0, 1),
        "depthwise weight gradient": weight_grad,
        "fused depthwise, statistics": (conv(normed(x, maps.of_x)) + bias[column]).transpose(0, 1),
        "fused depthwise, inference": (
            normed(x, maps.of_x) + normed(conv(normed(x, maps.of_x)) + bias[column], maps.of_h)
        ).transpose(0, 1),
        "mix": mixed,
        "pointwise, statistics": torch.einsum("oi,inhw->onhw", matrix, x),
        "activation backwards": grad + slope * (a + 2 * b * act(h)),
        "pointwise data gradient, sums, mix again": torch.einsum("oi,onhw->inhw", matrix, grad),
    }
    several = {name: (tensor.detach(),) for name, tensor in expected.items()} | {"depthwise half backwards": half}
    return {case.name: error_of(case.ours(), *several[case.name]) for case in maps.cases()}
