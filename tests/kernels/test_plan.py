"""Plans and their text."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from convmixer.kernels.plan import Plan, depthwise_text, read_depthwise


def test_the_text_names_what_differs_and_is_read_back() -> None:
    assert str(Plan()) == ""
    assert Plan.parse("") == Plan()
    plan = Plan(
        products="triton", keep="mixed", ends="torch", erf="long", depthwise="64x4x1p2r", pointwise="16x32x16x4x2"
    )
    assert str(plan) == "products=triton keep=mixed ends=torch erf=long depthwise=64x4x1p2r pointwise=16x32x16x4x2"
    assert Plan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    "text",
    ["products", "products=", "products=cublas", "keep=all", "size=3", "depthwise=64x4", "depthwise=64x4x1p",
     "pointwise=64x4x1p", "depthwise=64x4x1 ", "block_grad=None", "keep=mixed keep=halves"],
)  # fmt: skip
def test_what_is_no_plan_is_refused(text: str) -> None:
    if text.endswith(" "):  # spaces are between words, not in them
        assert Plan.parse(text) == Plan(depthwise="64x4x1")
        return
    with pytest.raises(ValueError, match="plan has"):
        Plan.parse(text)


def test_a_wrong_value_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="no plan has keep=everything"):
        dataclasses.replace(Plan(), keep="everything")  # type: ignore[arg-type]


def test_tiles_are_cut_down_to_the_maps() -> None:
    plan = Plan(depthwise="64x8x1p2r", pointwise="16x32x64x4x2")
    tiles = plan.depthwise_tiles("depthwise", 5, 16, torch.float16)
    assert tiles is not None
    assert (tiles.images, tiles.columns, tiles.window, tiles.warps, tiles.stages) == (16, 16, 16, 4, 1)
    assert (tiles.prefetch, tiles.unroll) == (2, False)
    assert plan.depthwise_tiles("block_grad", 5, 16, torch.float16) is None
    products = plan.pointwise_tiles("pointwise")
    assert products is not None
    assert (products.outputs, products.positions, products.inputs) == (16, 32, 64)
    assert (products.warps, products.stages) == (4, 2)
    assert plan.pointwise_tiles("pointwise_grad") is None


@pytest.mark.parametrize("text", ["64x4x1", "32x8x2p1", "16x4x1p3r", "128x8x1r"])
def test_tiles_have_a_text(text: str) -> None:
    assert depthwise_text(read_depthwise(text)) == text
