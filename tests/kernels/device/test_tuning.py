"""The choice of a plan: forms checked, the fastest taken, failures and the end of the time told. A clock stands in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from convmixer.arch import architecture
from convmixer.kernels import tiling, tuning
from convmixer.kernels.plan import Plan
from convmixer.kernels.timing import milliseconds
from convmixer.kernels.tuning import tuned_plan
from convmixer.kernels.tuning_passes import Maps, Pass, Tensors

ARCH = architecture("convmixer_2_3", kernel_size=3, patch_size=2, activation="gelu", num_classes=2)
TWO_TILES = [{"depthwise": "16x4x1"}, {"depthwise": "16x8x1"}]
PRODUCTS = [{"products": "library"}, {"products": "triton"}]


class Clock:
    """The time of a plan is the product of those of its words, 1 for a word that it does not know."""

    def __init__(self, times: dict[str, float]) -> None:
        self.times = times
        self.timed: list[list[Plan]] = []

    def __call__(self, calls: Sequence[Any]) -> list[float]:
        plans = [call.args[0] for call in calls]
        self.timed.append(plans)
        return [self.time(plan) for plan in plans]

    def time(self, plan: Plan) -> float:
        time = 1.0
        for word in str(plan).split():
            time *= self.times.get(word, 1.0)
        return time


Tune = Callable[..., tuple[Plan, list[str], Clock]]


@pytest.fixture
def tune(device: torch.device) -> Tune:
    def run(times: dict[str, float], **options: Any) -> tuple[Plan, list[str], Clock]:
        lines: list[str] = []
        clock = Clock(times)
        options = {"training": True, "dtype": torch.float32, **options}
        plan = tuned_plan(ARCH, 2, 6, device=device, timer=clock, say=lines.append, **options)
        return plan, lines, clock

    return run


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what is tuned in place of the real passes."""

    def put(*parts: Pass) -> None:
        def all_of_them(self: Maps, *, training: bool, may_keep: Sequence[str]) -> Iterator[Pass]:
            yield from parts

        monkeypatch.setattr(Maps, "passes", all_of_them)

    return put


def right(plan: Plan) -> Tensors:
    return torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])


def test_the_fastest_of_each_pass_is_taken_with_those_before_it(tune: Tune, passes: Callable[..., None]) -> None:
    tiles = [{"pointwise": "16x16x16x4x2"}, {"pointwise": "16x32x16x4x2"}]
    passes(Pass("pointwise", right, tiles, {"products": "triton"}), Pass("products", right, PRODUCTS, {}))
    plan, lines, clock = tune({"products=triton": 0.9, "pointwise=16x32x16x4x2": 0.5})
    assert plan == Plan(products="triton", pointwise="16x32x16x4x2")
    assert lines == [
        "kernels: pointwise, ms: as it is 0.900, pointwise=16x16x16x4x2 0.900, pointwise=16x32x16x4x2 0.450: "
        "pointwise=16x32x16x4x2",
        "kernels: products, ms: as it is 0.500, products=triton 0.450: products=triton",
    ]
    assert [len(plans) for plans in clock.timed] == [3, 2]


def test_tiles_of_products_that_are_not_taken_are_not_in_the_plan(tune: Tune, passes: Callable[..., None]) -> None:
    tiles = [{"pointwise": "16x16x16x4x2"}]
    passes(Pass("pointwise", right, tiles, {"products": "triton"}), Pass("products", right, PRODUCTS, {}))
    plan, _, _ = tune({"products=triton": 1.5, "pointwise=16x16x16x4x2": 0.5})
    assert plan == Plan()


def test_a_gain_within_the_noise_changes_nothing(tune: Tune, passes: Callable[..., None]) -> None:
    passes(Pass("depthwise", right, TWO_TILES, {}))
    assert tune({"depthwise=16x8x1": 0.99})[0] == Plan()
    assert tune({"depthwise=16x8x1": 0.97})[0] == Plan(depthwise="16x8x1")


@pytest.mark.parametrize(
    ("place", "factor", "reason"),
    [
        (0, 1.001, "result 0 is off by 1.0e-03 of its largest value"),
        (1, 0.5, "result 1 is off by 5.0e-01 of its largest value"),
        (1, float("nan"), "result 1 is off by nan of its largest value"),
    ],
)
def test_a_form_with_any_wrong_result_is_left_out(
    place: int, factor: float, reason: str, tune: Tune, passes: Callable[..., None]
) -> None:
    def wrong(plan: Plan) -> Tensors:
        found = list(right(plan))
        found[place] = found[place] * (factor if plan.depthwise == "16x8x1" else 1.0)
        return tuple(found)

    passes(Pass("depthwise", wrong, TWO_TILES, {}))
    plan, lines, _ = tune({"depthwise=16x8x1": 0.1, "depthwise=16x4x1": 0.5})
    assert plan == Plan(depthwise="16x4x1")
    assert lines[0] == f"kernels: depthwise depthwise=16x8x1 is left out: {reason}"


def test_a_form_that_fails_is_left_out(tune: Tune, passes: Callable[..., None]) -> None:
    def failing(plan: Plan) -> Tensors:
        if plan.depthwise == "16x4x1":
            raise RuntimeError("out of registers\nat line 3")
        return right(plan)

    passes(Pass("depthwise", failing, TWO_TILES, {}))
    plan, lines, _ = tune({"depthwise=16x4x1": 0.1})
    assert plan == Plan()
    assert lines[0] == "kernels: depthwise depthwise=16x4x1 is left out: out of registers"


def test_a_pass_that_cannot_be_timed_leaves_the_others_their_choice(
    device: torch.device, passes: Callable[..., None]
) -> None:
    passes(Pass("depthwise", right, TWO_TILES, {}), Pass("products", right, PRODUCTS, {}))
    clock, lines = Clock({"depthwise=16x8x1": 0.5}), list[str]()

    def timer(calls: Sequence[Any]) -> list[float]:
        if len(calls) == len(PRODUCTS):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTry less")
        return clock(calls)

    plan = tuned_plan(ARCH, 2, 6, torch.float32, device, training=True, timer=timer, say=lines.append)
    assert plan == Plan(depthwise="16x8x1")
    assert lines[-1] == "kernels: products is not timed: CUDA out of memory."


def test_where_even_the_default_fails_nothing_is_chosen(tune: Tune, passes: Callable[..., None]) -> None:
    def failing(plan: Plan) -> Tensors:
        raise RuntimeError("no memory")

    passes(Pass("depthwise", failing, TWO_TILES, {}), Pass("products", right, PRODUCTS, {}))
    plan, lines, _ = tune({"products=triton": 0.5})
    assert plan == Plan(products="triton")
    assert len([line for line in lines if line.endswith("is left out: no memory")]) == 3


def test_no_form_is_begun_after_the_time(
    tune: Tune, passes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second goes by with each look at the clock; what was not tried is told, and stays as it is."""
    seconds = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    passes(Pass("depthwise", right, TWO_TILES, {}), Pass("products", right, PRODUCTS, {}))
    plan, lines, _ = tune({"depthwise=16x4x1": 0.5, "products=triton": 0.1}, seconds=2.5)
    assert plan == Plan(depthwise="16x4x1")
    assert lines == [
        "kernels: no time is left to try depthwise depthwise=16x8x1",
        "kernels: depthwise, ms: as it is 1.000, depthwise=16x4x1 0.500: depthwise=16x4x1",
        "kernels: no time is left to try products as it is",
    ]


@pytest.fixture
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones, and one for each pass: the interpreter is slow."""
    for name in ("DEPTHWISE_CHOICES", "BLOCK_GRAD_CHOICES"):
        monkeypatch.setattr(tiling, name, (tiling.DepthwiseTiles(images=16, warps=8, stages=1),))
    for name in ("POINTWISE_CHOICES", "POINTWISE_GRAD_CHOICES"):
        monkeypatch.setattr(tiling, name, (tiling.PointwiseTiles(16, 32, 16, 4, 1),))


@pytest.mark.usefixtures("few_tiles")
@pytest.mark.parametrize("training", [True, False])
def test_every_real_form_is_right(training: bool, tune: Tune) -> None:
    """None is left out: each ran and equalled the default. The numbers that a run draws next stay as they were."""
    state = torch.get_rng_state()
    _, lines, clock = tune({}, training=training, dtype=torch.float16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(", ms: " in line for line in lines)
    names = ["depthwise", "block_grad", "pointwise", "pointwise_grad", "products", "ends"]
    if not training:
        names = ["depthwise", "pointwise", "products", "ends"]
    assert [line.split(",")[0].removeprefix("kernels: ") for line in lines] == names
    assert all(len(plans) >= 2 for plans in clock.timed)


@pytest.mark.usefixtures("few_tiles")
@pytest.mark.parametrize(("recompute", "room", "kept"), [(True, True, {"inputs"}), (False, False, {"halves"})])
def test_what_may_be_kept(
    recompute: bool, room: bool, kept: set[str], tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All maps only where memory has room, and the inputs alone where checkpointing is asked for."""
    monkeypatch.setattr(tuning, "_has_room", lambda *_: room)
    monkeypatch.setattr(Maps, "_products", lambda self, plan: right(plan))
    monkeypatch.setattr(Maps, "_ends", lambda self, plan: right(plan))
    plan, _, clock = tune({"keep=mixed": 0.1}, recompute=recompute)
    assert {plan.keep} == kept == {one.keep for plans in clock.timed for one in plans}


def test_short_erf_is_a_choice_for_gelu_in_bf16_alone(device: torch.device) -> None:
    for dtype, expected in ((torch.bfloat16, True), (torch.float16, False)):
        maps = Maps(ARCH, 2, 4, dtype, device)
        passes = {part.name: part for part in maps.passes(training=True, may_keep=["halves"])}
        assert ("erf" in passes) is expected
        if expected:
            short, long = (passes["erf"].run(Plan(erf=erf)) for erf in ("short", "long"))
            assert tuning._mismatch(short, long, dtype) is None
            assert not torch.equal(short[1], long[1])


def test_maps_are_large_but_not_larger() -> None:
    """A map of 768 x 1024 values per image: 2^27 values are 170 images, of which two groups of 64 are taken."""
    arch = replace(ARCH, dim=768, patch_size=7)
    assert tuning._max_images(arch, 224) == 128
    assert tuning._max_images(replace(arch, dim=1 << 20), 224) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="times a GPU")
def test_times_on_a_gpu(device: torch.device) -> None:
    """An addition to 512 MB takes between 50 us (20 TB/s) and 50 ms; a call that does nothing next to none."""
    x = torch.zeros(1 << 28, dtype=torch.float16, device=device)
    long, short = milliseconds([lambda: x.add_(1), lambda: None], device=device)
    assert 0.05 < long < 50
    assert short < 0.05


@pytest.mark.usefixtures("few_tiles")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="times a GPU")
def test_a_plan_for_a_gpu(device: torch.device) -> None:
    lines: list[str] = []
    plan = tuned_plan(ARCH, 64, 32, torch.bfloat16, device, training=True, say=lines.append)
    assert Plan.parse(str(plan)) == plan
    assert not [line for line in lines if "left out" in line]
