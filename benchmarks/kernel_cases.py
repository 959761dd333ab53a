"""The single passes of the fused network on random maps: ours, torch's, and the exact result of every output.

A pass in several forms is several cases with one exact result: products by the library and by Triton, with and without
the mixed map, and for passes with tiles each choice of `convmixer.kernels.tiling`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from convmixer.arch import Architecture
from convmixer.kernels import (
    block_launch,
    depthwise_launch,
    elementwise_launch,
    pointwise_launch,
    stem_operators,
    tiling,
)
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.plan import Plan, depthwise_text, pointwise_text
from convmixer.kernels.tiling import DepthwiseTiles, PointwiseTiles

Backend = Callable[[], object]
Exact = Callable[[], tuple[Tensor, ...]]

# Of the largest value of a result, by the type of the maps: what is rounded to that type once, and what is fp32, a sum
# or the gradient of a filter, in whose many terms rounding averages out. A scale that is 1 % off shows in the latter.
TOLERANCE = {torch.bfloat16: 1.6e-2, torch.float16: 2e-3, torch.float32: 2e-5}
TOLERANCE_OF_SUMS = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 2e-5}


@dataclass(frozen=True)
class Case:
    """A pass: maps of memory traffic (of one read or write each) and floating-point operations, at least.

    `ours` gives tensors (None and empty ones are left out) that `exact` gives in float64; `eager` is torch's.
    `activated`: an activation is part of it.
    """

    name: str
    maps: float
    ours: Backend
    exact: Exact
    eager: Backend | None = None
    operations: float = 0.0
    candidate: bool = False
    activated: bool = True


class Maps:
    """Random maps and parameters of one block, [C, N, H, W], and the implementations of each pass of it."""

    def __init__(self, arch: Architecture, batch: int, side: int, dtype: torch.dtype, device: torch.device) -> None:
        self.arch, self.k, self.dtype, self.device = arch, arch.kernel_size, dtype, device
        self.act, self.erf = arch.activation, Plan().erf
        shape = (arch.dim, batch, side, side)
        self.x, self.h, self.grad = (torch.randn(shape, device=device).to(dtype) for _ in range(3))
        self.weight = (torch.randn(arch.dim, 1, self.k, self.k, device=device) / self.k).to(dtype).float()
        self.bias = torch.randn(arch.dim, device=device)
        self.matrix = (torch.randn(arch.dim, arch.dim, device=device) / arch.dim**0.5).to(dtype).float()
        self.coefficients = torch.randn(3, arch.dim, device=device)
        scale, shift = torch.randn(2, arch.dim, device=device)
        self.of_x = Normalise(scale, shift, self.act, torch.randn(arch.dim, device=device))
        scale, shift = torch.randn(2, arch.dim, device=device)
        self.of_h = Normalise(scale, shift, self.act)
        self.means_grad = torch.randn(batch, arch.dim, device=device)
        self.images = torch.randn(batch, 3, side * arch.patch_size, side * arch.patch_size, device=device)

    @property
    def product(self) -> float:
        """Operations of a pointwise product."""
        return 2.0 * self.arch.dim**2 * self.x[0].numel()

    def cases(self, *, candidates: bool = False) -> Iterator[Case]:
        """Every pass as `Plan()` and `tiling` have it, and with `candidates` in every other form too."""
        forms = (self._depthwise, self._depthwise_grads, self._elementwise, self._products, self._ends)
        for case in (case for form in forms for case in form()):
            if candidates or not case.candidate:
                yield case
        if candidates and self.act == "gelu" and self.dtype == torch.bfloat16 and self.erf == "short":
            long = copy.copy(self)
            long.erf = "long"
            for case in long.cases():
                if case.activated:
                    yield replace(case, name=f"{case.name}, long erf", eager=None, candidate=True)

    def _tiles(
        self, choices: Sequence[DepthwiseTiles], default: DepthwiseTiles
    ) -> Iterator[tuple[str, DepthwiseTiles | None]]:
        """The default, and each of the choices that is another one for these maps."""
        yield "", None
        seen = {default}
        for choice in choices:
            fitted = tiling.fit_depthwise(choice, self.x.shape[1], self.x.shape[3], self.dtype)
            if fitted not in seen:
                seen.add(fitted)
                yield f" {depthwise_text(choice)}", fitted

    def _depthwise(self) -> Iterator[Case]:
        x, weight, launch = self.x.transpose(0, 1), self.weight, depthwise_launch.depthwise
        nchw, cast, bias = x.contiguous(), weight.to(self.dtype), self.bias.to(self.dtype)
        eager = lambda: F.conv2d(nchw, cast, bias, padding="same", groups=self.arch.dim)  # noqa: E731
        images, width, erf = self.x.shape[1], self.x.shape[3], self.erf
        for text, tiles in self._tiles(
            tiling.DEPTHWISE_CHOICES, tiling.depthwise_tiles(images, width, self.dtype, self.k)
        ):
            yield Case(
                f"depthwise forward{text}",
                2,
                _first(partial(launch, x, weight, self.bias, tiles=tiles)),
                lambda: (_swap(self._conv(self.x.double()) + _column(self.bias)),),
                None if tiles else eager,
                candidate=tiles is not None,
                activated=False,
            )
        default = tiling.depthwise_tiles(images, width, self.dtype, self.k, fused=True)
        for text, tiles in self._tiles(tiling.DEPTHWISE_CHOICES, default):
            candidate = tiles is not None
            fused = partial(launch, x, weight, self.bias, prologue=self.of_x, tiles=tiles, erf=erf)
            yield Case(
                f"fused depthwise, statistics{text}",
                2,
                partial(fused, statistics=self.act),
                self._exact_half,
                candidate=candidate,
            )
            yield Case(
                f"fused depthwise, inference{text}",
                2,
                _first(partial(fused, mix=self.of_h)),
                lambda: (
                    _swap(self._normed(self.x, self.of_x) + self._normed(_swap(self._exact_half()[0]), self.of_h)),
                ),
                candidate=candidate,
            )

    def _depthwise_grads(self) -> Iterator[Case]:
        x, grad, weight = self.x.transpose(0, 1), self.grad.transpose(0, 1), self.weight
        nchw, nchw_grad, cast, groups = x.contiguous(), grad.contiguous(), weight.to(self.dtype), self.arch.dim

        def backward(mask: list[bool]) -> object:
            half = [self.k // 2] * 2
            return torch.ops.aten.convolution_backward(
                nchw_grad, nchw, cast, None, [1, 1], half, [1, 1], False, [0, 0], groups, mask
            )

        yield Case(
            "depthwise data gradient",
            2,
            lambda: depthwise_launch.depthwise(grad, weight, None, flip=True)[0],
            lambda: (_swap(self._conv(self.grad.double(), flip=True)),),
            lambda: backward([True, False, False]),
            activated=False,
        )
        images, width, erf = self.x.shape[1], self.x.shape[3], self.erf
        no_prefetch = [choice for choice in tiling.BLOCK_GRAD_CHOICES if not choice.prefetch]
        for text, tiles in self._tiles(no_prefetch, tiling.weight_grad_tiles(images, width, self.dtype)):
            yield Case(
                f"depthwise weight gradient{text}",
                2,
                partial(depthwise_launch.depthwise_weight_grad, x, grad, self.k, tiles=tiles),
                self._exact_weight_grad,
                None if text else lambda: backward([False, True, False]),
                candidate=tiles is not None,
                activated=False,
            )
        for text, tiles in self._tiles(
            tiling.BLOCK_GRAD_CHOICES, tiling.block_grad_tiles(images, width, self.dtype, self.k)
        ):
            yield Case(
                f"depthwise half backwards{text}",
                4,
                partial(
                    block_launch.depthwise_block_grad,
                    *(self.grad, self.h, self.x, weight, self.coefficients, self.of_x),
                    tiles=tiles,
                    erf=erf,
                ),
                self._exact_half_backwards,
                candidate=tiles is not None,
            )

    def _elementwise(self) -> Iterator[Case]:
        launch, erf = elementwise_launch, self.erf
        yield Case(
            "mix", 3, lambda: launch.mix(self.x, self.h, self.of_x, self.of_h, erf=erf), lambda: (self._exact_mix(),)
        )
        yield Case(
            "statistics of the product",
            1,
            lambda: launch.activation_sums(self.h, self.bias, self.act, erf=erf),
            lambda: (self._sums(self.h.double()),),
        )
        yield Case(
            "activation backwards",
            3,
            lambda: launch.activation_grad(self.grad, self.h, self.bias, self.coefficients[:2], self.act, erf=erf),
            self._exact_activation_grad,
        )
        for mix, maps, label in ((True, 4, "BatchNorm's sums, mix again"), (False, 2, "BatchNorm's sums")):
            yield Case(
                label,
                maps,
                partial(launch.norm_sums, self.grad, self.h, self.x, self.of_x, self.of_h, mix=mix, erf=erf),
                partial(self._exact_norm_sums, mix),
                candidate=not mix,
            )

    def _products(self) -> Iterator[Case]:
        launch, matrix, weight, erf = pointwise_launch, self.matrix, self.matrix[:, :, None, None], self.erf
        cast = matrix.to(self.dtype)
        yield Case(
            "product",
            2,
            lambda: launch.product(matrix, self.x),
            lambda: (self._product(matrix, self.x),),
            lambda: cast @ self.x.flatten(1),
            self.product,
            activated=False,
        )
        yield Case(
            "product, data gradient",
            2,
            lambda: launch.product(matrix.t(), self.grad),
            lambda: (self._product(matrix.t(), self.grad),),
            lambda: cast.t() @ self.grad.flatten(1),
            self.product,
            activated=False,
        )
        yield Case(
            "product, weight gradient in fp32",
            2,
            lambda: launch.weight_grad(self.grad, self.x),
            lambda: (self.grad.double().flatten(1) @ self.x.double().flatten(1).t(),),
            lambda: self.grad.flatten(1) @ self.x.flatten(1).t(),
            self.product,
            activated=False,
        )
        for tile in self._pointwise_choices(tiling.pointwise_tiles, tiling.POINTWISE_CHOICES):
            yield Case(
                f"Triton product, statistics {pointwise_text(tile)}",
                2,
                partial(launch.pointwise, self.x, weight, bias=self.bias, statistics=self.act, tiles=tile, erf=erf),
                lambda: (out := self._product(matrix, self.x), self._sums(out)),
                operations=self.product,
                candidate=True,
            )
        for tile in self._pointwise_choices(tiling.pointwise_grad_tiles, tiling.POINTWISE_GRAD_CHOICES):
            for mix, maps, label in ((True, 5, ", mix again"), (False, 3, "")):
                yield Case(
                    f"Triton data gradient, sums{label} {pointwise_text(tile)}",
                    maps,
                    partial(
                        launch.pointwise_grad,
                        *(self.grad, weight, self.x, self.h, self.of_x, self.of_h),
                        mix=mix,
                        tiles=tile,
                        erf=erf,
                    ),
                    partial(self._exact_grad, mix),
                    operations=self.product,
                    candidate=True,
                )

    def _pointwise_choices(
        self, default: Callable[..., PointwiseTiles], choices: Sequence[PointwiseTiles]
    ) -> Sequence[PointwiseTiles]:
        first = default(self.arch.dim, self.arch.dim, self.x[0].numel(), self.dtype)
        # Tiles larger than the maps, or made for 16-bit values, are no choice.
        large = min(self.arch.dim, self.x[0].numel()) >= 128 and self.dtype != torch.float32
        return list(dict.fromkeys((first, *(choices if large else ()))))

    def _ends(self) -> Iterator[Case]:
        patch, erf = self.arch.patch_size, self.erf
        size = self.x[0].numel() * self.arch.dim
        rows = 3 * patch * patch
        yield Case(
            "stem's columns",
            (self.images.numel() * 4 / self.x.element_size() + self.images.numel()) / size,
            lambda: stem_operators.patch_columns(self.images, patch, self.dtype)[:rows],
            lambda: (_swap(F.unfold(self.images.double(), patch, stride=patch).unflatten(2, self.x.shape[2:])),),
            activated=False,
        )
        yield Case(
            "pooling",
            1,
            lambda: elementwise_launch.pool(self.h, self.bias, self.act, erf=erf),
            lambda: (self._act(self.h.double() + _column(self.bias)).mean((2, 3)).t(),),
        )
        yield Case(
            "pooling backwards",
            2,
            lambda: elementwise_launch.pool_grad(self.means_grad, self.h, self.bias, self.act, erf=erf),
            self._exact_pool_grad,
        )

    # In float64, on maps [C, N, H, W]. All are functions, so that maps of the size that is timed cost nothing.

    def _act(self, value: Tensor) -> Tensor:
        if self.arch.activation == "relu":
            return F.relu(value)
        return F.gelu(value, approximate="tanh" if self.arch.activation == "gelu_tanh" else "none")

    def _normed(self, value: Tensor, of: Normalise) -> Tensor:
        raw = value.double() if of.bias is None else value.double() + _column(of.bias)
        return _column(of.scale) * self._act(raw) + _column(of.shift)

    def _conv(self, value: Tensor, weight: Tensor | None = None, *, flip: bool = False) -> Tensor:
        taps = self.weight.double() if weight is None else weight
        taps = taps.flip(-1, -2) if flip else taps
        return _swap(F.conv2d(_swap(value), taps, padding="same", groups=self.arch.dim))

    def _sums(self, out: Tensor) -> Tensor:
        active = self._act(out + _column(self.bias))
        return torch.stack((active.sum((1, 2, 3)), active.square().sum((1, 2, 3))))

    def _exact_half(self) -> tuple[Tensor, Tensor]:
        h = self._conv(self._normed(self.x, self.of_x)) + _column(self.bias)
        active = self._act(h)
        return _swap(h), torch.stack((active.sum((1, 2, 3)), active.square().sum((1, 2, 3))))

    def _exact_weight_grad(self) -> tuple[Tensor, ...]:
        weight = self.weight.double().requires_grad_()
        return torch.autograd.grad(self._conv(self.x.double(), weight), weight, self.grad.double())

    def _exact_half_backwards(self) -> tuple[Tensor, ...]:
        x, weight = self.x.double().requires_grad_(), self.weight.double().requires_grad_()
        scale, shift = (t.double().requires_grad_() for t in (self.of_x.scale, self.of_x.shift))
        of_x = self.of_x._replace(scale=scale, shift=shift)
        h, grad = self.h.double().requires_grad_(), self.grad.double()
        a, b, d = map(_column, self.coefficients)
        active = self._act(h)
        (h_grad,) = torch.autograd.grad(active, h, a * grad + b * active.detach() + d)
        z = self._normed(x, of_x)
        wanted = (x, weight, scale, shift)
        x_grad, weight_grad, scale_grad, shift_grad = torch.autograd.grad(
            (self._conv(z, weight), z), wanted, (h_grad, grad)
        )
        return x_grad, weight_grad, torch.stack((h_grad.sum((1, 2, 3)), shift_grad, scale_grad))

    def _exact_mix(self) -> Tensor:
        return self._normed(self.x, self.of_x) + self._normed(self.h, self.of_h)

    def _exact_activation_grad(self) -> tuple[Tensor, Tensor]:
        h = self.h.double().requires_grad_()
        active = self._act(h + _column(self.bias))
        a, b = _column(self.coefficients[0]), _column(self.coefficients[1])
        (out,) = torch.autograd.grad((a * active + b * active.square()).sum(), h)
        out = out + self.grad.double()
        return out, out.sum((1, 2, 3))

    def _norm_sums(self, grad: Tensor) -> Tensor:
        return torch.stack((grad.sum((1, 2, 3)), (grad * self._act(self.h.double())).sum((1, 2, 3))))

    def _exact_norm_sums(self, mix: bool) -> tuple[Tensor, ...]:
        return (self._norm_sums(self.grad.double()), *([self._exact_mix()] if mix else []))

    def _product(self, matrix: Tensor, x: Tensor) -> Tensor:
        return torch.einsum("oi,inhw->onhw", matrix.double(), x.double())

    def _exact_grad(self, mix: bool) -> tuple[Tensor, ...]:
        grad = self._product(self.matrix.t(), self.grad)
        return (grad, self._norm_sums(grad), *([self._exact_mix()] if mix else []))

    def _exact_pool_grad(self) -> tuple[Tensor, ...]:
        h = self.h.double().requires_grad_()
        means = self._act(h + _column(self.bias)).mean((2, 3)).t()
        return torch.autograd.grad(means, h, self.means_grad.double())


def _first(run: Callable[[], tuple[Tensor | None, ...]]) -> Backend:
    return lambda: run()[0]


def _column(vector: Tensor) -> Tensor:
    return vector.double()[:, None, None, None]


def _swap(maps: Tensor) -> Tensor:
    return maps.transpose(0, 1)


def error_of(found: object, exact: Sequence[Tensor], dtype: torch.dtype) -> float:
    """The largest error of any output, relative to the largest value in it, as a share of what it may be (`TOLERANCE`).

    Infinite where outputs are missing, have another shape or are no numbers.
    """
    tensors = [t for t in (found if isinstance(found, tuple) else (found,)) if isinstance(t, Tensor) and t.numel()]
    if [tensor.shape for tensor in tensors] != [right.shape for right in exact]:
        return float("inf")
    worst = 0.0
    for tensor, right in zip(tensors, exact, strict=True):
        limit = (TOLERANCE if tensor.dtype == dtype else TOLERANCE_OF_SUMS)[dtype]
        error = ((tensor.double() - right).abs().max() / right.abs().max()).item() / limit
        worst = max(worst, error if error == error else float("inf"))
    return worst


def small(arch: Architecture, side: int, dtype: torch.dtype, device: torch.device) -> Maps:
    """Maps of the variant's height, width and filter, but few of them, for a check.

    On a GPU as many as take the tiles that are timed, some not filled; 16 divides all numbers as it does those, so that
    Triton compiles nothing again for the timing. In the interpreter as few as show each boundary.
    """
    channels, batch = (128, 80) if device.type == "cuda" else (2, 2)
    return Maps(replace(arch, dim=channels), batch, side, dtype, device)
