"""Which of several right forms each pass of the fused network takes: the one predicted best until a GPU has timed them.

A form never changes what is computed, only its rounding and its speed. A plan has a text form, which the log of a run
shows and a checkpoint keeps, so that a resumed run computes by the same forms as the run that it goes on with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import torch

from convmixer.kernels import tiling
from convmixer.kernels.tiling import DepthwiseTiles, PointwiseTiles

_FORMS = {
    "products": "library|triton",
    "keep": "mixed|halves|inputs",
    "ends": "kernels|torch",
    "erf": "short|long",
    "depthwise": r"\d+x\d+x\d+(p\d+)?r?",
    "block_grad": r"\d+x\d+x\d+(p\d+)?r?",
    "pointwise": r"\d+x\d+x\d+x\d+x\d+",
    "pointwise_grad": r"\d+x\d+x\d+x\d+x\d+",
}


@dataclass(frozen=True)
class Plan:
    """The forms of the passes. `str(plan)` names only what differs from `Plan()`; `Plan.parse` reads that.

    * `products`: the pointwise products by the library (cuBLAS) with passes of their own for statistics, or by Triton
      with these in the epilogue.
    * `keep`: which maps of a block the backward pass finds: its mixed map too, its two convolutions' outputs, or its
      input alone (activation checkpointing, which is only taken where it is asked for).
    * `ends`: stem and pooling by our kernels, or by torch's operators.
    * `erf`: in GELU of bf16 maps, one as exact as these need, or the one that other maps always have.
    * Tiles, or None for those that `tiling` has for the shape: `depthwise` (forward) and `block_grad` as "64x4x1p2r",
      images, warps and stages, p and the rows loaded ahead, r where the code of k rows is rolled up; `pointwise` and
      `pointwise_grad`, Triton's products, as "128x256x64x8x3", outputs, positions, inputs, warps and stages.

    Raises ValueError for a value that is none of these.
    """

    products: Literal["library", "triton"] = "library"
    keep: Literal["mixed", "halves", "inputs"] = "halves"
    ends: Literal["kernels", "torch"] = "kernels"
    erf: Literal["short", "long"] = "short"
    depthwise: str | None = None
    block_grad: str | None = None
    pointwise: str | None = None
    pointwise_grad: str | None = None

    def __post_init__(self) -> None:
        for name, form in _FORMS.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(form, value):
                raise ValueError(f"no plan has {name}={value}")

    def __str__(self) -> str:
        default = Plan()
        changed = [field.name for field in fields(self) if getattr(self, field.name) != getattr(default, field.name)]
        return " ".join(f"{name}={getattr(self, name)}" for name in changed)

    @classmethod
    @lru_cache
    def parse(cls, text: str) -> Plan:
        """The plan of a text that `str` made. Raises ValueError for another one."""
        values: dict[str, str] = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if name not in _FORMS or not equals:
                raise ValueError(f"no plan has {word}")
            if name in values:
                raise ValueError(f"a plan has {name} once, this twice")
            values[name] = value
        return cls(**values)  # type: ignore[arg-type]

    def depthwise_tiles(
        self, pass_name: Literal["depthwise", "block_grad"], images: int, width: int, dtype: torch.dtype
    ) -> DepthwiseTiles | None:
        """The tiles of a pass over so many images of this width; None where the plan leaves them to `tiling`."""
        text: str | None = getattr(self, pass_name)
        return None if text is None else tiling.fit_depthwise(read_depthwise(text), images, width, dtype)

    def pointwise_tiles(self, pass_name: Literal["pointwise", "pointwise_grad"]) -> PointwiseTiles | None:
        """As `depthwise_tiles`, for Triton's products."""
        text: str | None = getattr(self, pass_name)
        if text is None:
            return None
        outputs, positions, inputs, warps, stages = map(int, text.split("x"))
        return PointwiseTiles(outputs, positions, inputs, warps, stages)


def read_depthwise(text: str) -> DepthwiseTiles:
    """Of "64x4x1p2r", not yet cut down to any maps."""
    sizes, _, ahead = text.rstrip("r").partition("p")
    images, warps, stages = map(int, sizes.split("x"))
    return DepthwiseTiles(
        images=images, warps=warps, stages=stages, prefetch=int(ahead or 0), unroll=not text.endswith("r")
    )


def depthwise_text(tiles: DepthwiseTiles) -> str:
    """What `read_depthwise` reads."""
    ahead = f"p{tiles.prefetch}" if tiles.prefetch else ""
    return f"{tiles.images}x{tiles.warps}x{tiles.stages}{ahead}{'' if tiles.unroll else 'r'}"


def pointwise_text(tiles: PointwiseTiles) -> str:
    """As a plan has it."""
    return f"{tiles.outputs}x{tiles.positions}x{tiles.inputs}x{tiles.warps}x{tiles.stages}"
