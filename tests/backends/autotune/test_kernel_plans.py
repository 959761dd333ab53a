"""The measured forms of the fused passes: asked for once, kept with the timings, named with the backend."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.backends.conftest import EAGER, MakeModel, MakeWorkload, backend

from convmixer.backends import registry as backends
from convmixer.backends.autotune import cache, choose
from convmixer.backends.autotune.benchmark import Timing
from convmixer.backends.autotune.choose import choose_backend
from convmixer.backends.registry import backends_for
from convmixer.kernels.plan import Plan

LONG = 10**9
FUSED = backend("fused, Triton", lambda model: model, takes_plan=True)


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the kernels' own timing; lists what was asked of it."""
    calls: list[Any] = []

    def tuned_plan(*arguments: object, **options: object) -> Plan:
        calls.append((*arguments, options["training"]))
        return Plan(products="triton")

    module = ModuleType("convmixer.kernels.tuning")
    module.tuned_plan = tuned_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "convmixer.kernels.tuning", module)
    monkeypatch.setattr(backends, "BACKENDS", (EAGER, FUSED))
    monkeypatch.setattr(choose, "has_bf16_units", lambda: False)
    fast = {"fused": 0.1, "eager": 0.2}
    monkeypatch.setattr(
        choose,
        "benchmark",
        lambda backends, *_: {backend.full_name: Timing(fast[backend.kind], 1.0) for backend in backends},
    )
    return calls


@pytest.mark.parametrize("execution", ["auto", "fused"])
def test_a_long_workload_takes_the_measured_forms(
    small_model: MakeModel, workload_of: MakeWorkload, tuning: list[Any], execution: Any
) -> None:
    model = small_model()
    workload = workload_of(model, training=True)
    said: list[str] = []
    name = choose_backend(model, workload, LONG, execution, said.append)
    assert name == "fused, Triton [products=triton]"
    assert tuning == [(model.arch, 4, 16, torch.float32, torch.device("cpu"), True)]
    assert said == [
        "execution: timing the forms of the fused passes",
        "execution: timing 2 backends",
        "execution: fused, Triton [products=triton], 2.0 times eager (10 img/s)",
    ]
    # The second time everything is known.
    assert choose_backend(model, workload, LONG, execution, said.append) == name
    assert len(tuning) == 1
    assert said[3:] == said[2:3]
    assert cache.load_plan(workload) == "products=triton"


def test_a_short_workload_takes_the_default_ones(
    small_model: MakeModel, workload_of: MakeWorkload, tuning: list[Any]
) -> None:
    model = small_model()
    assert choose_backend(model, workload_of(model, training=True), 1, "fused", lambda _: None) == "fused, Triton"
    assert tuning == []


def test_recomputation_is_a_plan_of_its_own(
    small_model: MakeModel, workload_of: MakeWorkload, tuning: list[Any]
) -> None:
    model = small_model()
    workload = replace(workload_of(model, training=True), recompute=True)
    assert choose_backend(model, workload, 1, "fused", lambda _: None) == "fused, Triton [keep=inputs]"
    assert (
        choose_backend(model, workload, LONG, "fused", lambda _: None) == "fused, Triton [products=triton keep=inputs]"
    )
    assert cache.load_plan(replace(workload, recompute=False)) is None


def test_what_recomputes(monkeypatch: pytest.MonkeyPatch, small_model: MakeModel, workload_of: MakeWorkload) -> None:
    monkeypatch.setattr(backends, "reason_against", lambda *workload: None)
    workload = replace(workload_of(small_model(), training=True), recompute=True)
    assert [one.kind for one in backends_for(workload)] == ["eager", "eager", "fused"]
    for one in backends_for(workload):
        model = small_model()
        one.network(model, workload)
        assert model.recompute
        # An evaluation in between does not end it.
        one.network(model, workload_of(model))
        assert model.recompute
    names = [backend.full_name for backend in backends_for(replace(workload, device=torch.device("cuda")))]
    assert names[2:] == ["fused, Triton [keep=inputs]", "fused, Triton, CUDA graph [keep=inputs]"]


def test_forms_that_cannot_be_timed_are_the_default_ones(
    small_model: MakeModel, workload_of: MakeWorkload, tuning: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Plan:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sys.modules["convmixer.kernels.tuning"], "tuned_plan", broken)
    model = small_model()
    said: list[str] = []
    workload = workload_of(model, training=True)
    assert choose_backend(model, workload, LONG, "auto", said.append) == "fused, Triton"
    assert said[1] == ("execution: forms not timed, the default ones are taken (OutOfMemoryError: CUDA out of memory)")
    assert cache.load_plan(workload) is None
