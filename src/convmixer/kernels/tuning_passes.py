"""The passes of the fused network whose forms a plan chooses, by themselves on random maps of a workload's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from convmixer.arch import Architecture
from convmixer.kernels import block_launch, depthwise_launch, elementwise_launch, pointwise_launch, tiling
from convmixer.kernels.block import run_pool, run_stem
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.plan import Plan, depthwise_text, pointwise_text
from convmixer.model import ConvMixer

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Pass:
    """`run` gives all that a pass makes, by the forms of a plan; `choices` are forms, of which some fields are tried.

    Whatever the choice, the results are equal but for rounding. `base` are fields that all choices are tried with.
    """

    name: str
    run: Callable[[Plan], Tensors]
    choices: Sequence[dict[str, Any]]
    base: dict[str, Any]


class Maps:
    """Random maps [C, N, H, W], vectors and filters of one block of a network, and its images."""

    def __init__(
        self, arch: Architecture, batch: int, image_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        dim, k, side = arch.dim, arch.kernel_size, image_size // arch.patch_size
        self.arch, self.dtype, self.act = arch, dtype, arch.activation
        shape = (dim, batch, side, side)
        self.x, self.h, self.grad = (torch.randn(shape, device=device).to(dtype) for _ in range(3))
        self.images = torch.randn(batch, arch.in_chans, image_size, image_size, device=device)
        self.filter = torch.randn(dim, 1, k, k, device=device) / k
        self.matrix = torch.randn(dim, dim, 1, 1, device=device) / dim**0.5
        vectors = torch.randn(5, dim, device=device)
        self.bias = vectors[0]
        self.of_x = Normalise(vectors[1], vectors[2], self.act, vectors[0])
        self.of_h = Normalise(vectors[3], vectors[4], self.act)
        self.coefficients = torch.randn(3, dim, device=device)
        self.mixed = elementwise_launch.mix(self.x, self.h, self.of_x, self.of_h)
        self.sums_grad = torch.randn(2, dim, device=device) / self.x[0].numel()
        self.means_grad = torch.randn(batch, dim, device=device)
        with torch.device(device):
            self.ends = ConvMixer(replace(arch, depth=1, num_classes=1))

    def passes(self, *, training: bool, may_keep: Sequence[str]) -> Iterator[Pass]:
        """In the order in which they are chosen: Triton's tiles before Triton is compared with the library."""
        triton = {"products": "triton"}
        planes = [{"depthwise": text} for text in self._texts(tiling.DEPTHWISE_CHOICES)]
        products = [{"pointwise": pointwise_text(tiles)} for tiles in tiling.POINTWISE_CHOICES]
        if not training:
            yield Pass("depthwise", self._depthwise_inference, planes, {})
            yield Pass("pointwise", self._product, products, triton)
            yield Pass("products", self._product, [{"products": name} for name in ("library", "triton")], {})
            yield Pass("ends", self._pooling, [{"ends": name} for name in ("kernels", "torch")], {})
        else:
            yield Pass("depthwise", self._depthwise, planes, {})
            choices = [{"block_grad": text} for text in self._texts(tiling.BLOCK_GRAD_CHOICES)]
            yield Pass("block_grad", self._block_grad, choices, {})
            yield Pass("pointwise", self._forward, products, triton)
            grads = [{"pointwise_grad": pointwise_text(tiles)} for tiles in tiling.POINTWISE_GRAD_CHOICES]
            yield Pass("pointwise_grad", self._backward, grads, {**triton, "keep": may_keep[0]})
            forms = [{"products": name, "keep": keep} for keep in may_keep for name in ("library", "triton")]
            yield Pass("products", self._products, forms, {})
            yield Pass("ends", self._ends, [{"ends": name} for name in ("kernels", "torch")], {})
        if self.act == "gelu" and self.dtype == torch.bfloat16:
            yield Pass("erf", self._activations, [{"erf": name} for name in ("short", "long")], {})

    def _texts(self, choices: Sequence[tiling.DepthwiseTiles]) -> list[str]:
        """Of tiles as they are cut down to the maps, which may make several the same."""
        images, width = self.x.shape[1], self.x.shape[3]
        return [depthwise_text(tiling.fit_depthwise(tiles, images, width, self.dtype)) for tiles in choices]

    def _tiles(self, pass_name: Literal["depthwise", "block_grad"], plan: Plan) -> tiling.DepthwiseTiles | None:
        return plan.depthwise_tiles(pass_name, self.x.shape[1], self.x.shape[3], self.dtype)

    def _depthwise(self, plan: Plan) -> Tensors:
        return depthwise_launch.depthwise(
            self.x.transpose(0, 1),
            self.filter,
            self.bias,
            prologue=self.of_x,
            statistics=self.act,
            erf=plan.erf,
            tiles=self._tiles("depthwise", plan),
        )

    def _depthwise_inference(self, plan: Plan) -> Tensors:
        out, _ = depthwise_launch.depthwise(
            self.x.transpose(0, 1),
            self.filter,
            self.bias,
            prologue=self.of_x,
            mix=self.of_h,
            erf=plan.erf,
            tiles=self._tiles("depthwise", plan),
        )
        return (out,)

    def _block_grad(self, plan: Plan) -> Tensors:
        tiles = self._tiles("block_grad", plan)
        return block_launch.depthwise_block_grad(
            self.grad, self.h, self.x, self.filter, self.coefficients, self.of_x, erf=plan.erf, tiles=tiles
        )

    def _product(self, plan: Plan) -> Tensors:
        if plan.products == "library":
            return (pointwise_launch.product(self.matrix.flatten(1), self.mixed),)
        return pointwise_launch.pointwise(self.mixed, self.matrix, tiles=plan.pointwise_tiles("pointwise"))[:1]

    def _forward(self, plan: Plan) -> Tensors:
        return pointwise_launch.forward(self.mixed, self.matrix, self.bias, self.act, plan)

    def _backward(self, plan: Plan) -> Tensors:
        kept = self.mixed if plan.keep == "mixed" else None
        return pointwise_launch.backward(self.grad, self.matrix, self.x, self.h, kept, self.of_x, self.of_h, plan)

    def _products(self, plan: Plan) -> Tensors:
        return (*self._forward(plan), *self._backward(plan))

    def _pooling(self, plan: Plan) -> Tensors:
        return (run_pool(self.ends, self.x, self.bias, plan),)

    @torch.enable_grad()
    def _ends(self, plan: Plan) -> Tensors:
        """Stem and pooling as if there were no block between them, and the gradients of the stem's parameters."""
        conv = self.ends.stem.conv
        x, bias, sums = run_stem(self.ends, self.images, self.dtype, plan)
        means = run_pool(self.ends, x, torch.zeros_like(self.bias) if bias is None else bias, plan)
        assert conv.bias is not None
        grads = torch.autograd.grad((sums, means), (conv.weight, conv.bias), (self.sums_grad, self.means_grad))
        return (sums.detach(), means.detach(), *grads)

    def _activations(self, plan: Plan) -> Tensors:
        """The passes with most of GELU in them, without products."""
        mixed = elementwise_launch.mix(self.x, self.h, self.of_x, self.of_h, erf=plan.erf)
        sums = elementwise_launch.activation_sums(self.x, self.bias, self.act, erf=plan.erf)
        grads = elementwise_launch.activation_grad(
            self.grad, self.x, self.bias, self.coefficients[:2], self.act, erf=plan.erf
        )
        return (mixed, sums, *grads)
