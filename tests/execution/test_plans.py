"""The measured forms of the fused passes: asked for once, kept with the timings, named with the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from convmixer.backends import registry as ways
from convmixer.backends.autotune import cache, choose
from convmixer.backends.autotune.benchmark import Timing
from convmixer.backends.autotune.choose import choose_way
from convmixer.backends.registry import Way, ways_for
from convmixer.backends.workload import Job
from convmixer.kernels.plan import Plan
from convmixer.model import ConvMixer

Make = Callable[..., ConvMixer]
MakeJob = Callable[..., Job]
LONG = 10**9
EAGER = Way("eager, channels_last", "eager", lambda job: True, lambda model, job, plan: model)
FUSED = Way("fused, Triton", "fused", lambda job: True, lambda model, job, plan: model, takes_plan=True)


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the kernels' own timing; lists what was asked of it."""
    asked: list[Any] = []

    def tuned_plan(*arguments: object, **options: object) -> Plan:
        asked.append((*arguments, options["training"]))
        return Plan(products="triton")

    module = ModuleType("convmixer.kernels.tuning")
    module.tuned_plan = tuned_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "convmixer.kernels.tuning", module)
    monkeypatch.setattr(ways, "WAYS", (EAGER, FUSED))
    monkeypatch.setattr(choose, "has_bf16_units", lambda: False)
    fast = {"fused": 0.1, "eager": 0.2}
    monkeypatch.setattr(
        choose, "measure", lambda ways, *_: {way.full_name: Timing(fast[way.kind], 1.0) for way in ways}
    )
    return asked


@pytest.mark.parametrize("execution", ["auto", "fused"])
def test_a_long_job_takes_the_measured_forms(
    small_model: Make, job_of: MakeJob, tuning: list[Any], execution: Any
) -> None:
    model = small_model()
    job, said = job_of(model, training=True), []
    name = choose_way(model, job, LONG, execution, said.append)
    assert name == "fused, Triton [products=triton]"
    assert tuning == [(model.arch, 4, 16, torch.float32, torch.device("cpu"), True)]
    assert said == [
        "execution: timing the forms of the fused passes",
        "execution: timing 2 ways of running the network",
        "execution: fused, Triton [products=triton], 2.0 times eager (10 img/s)",
    ]
    # The second time everything is known.
    assert choose_way(model, job, LONG, execution, said.append) == name
    assert len(tuning) == 1
    assert said[3:] == said[2:3]
    assert cache.load_plan(job) == "products=triton"


def test_a_short_job_takes_the_default_ones(small_model: Make, job_of: MakeJob, tuning: list[Any]) -> None:
    model = small_model()
    assert choose_way(model, job_of(model, training=True), 1, "fused", lambda _: None) == "fused, Triton"
    assert tuning == []


def test_recomputation_is_a_plan_of_its_own(small_model: Make, job_of: MakeJob, tuning: list[Any]) -> None:
    model = small_model()
    job = replace(job_of(model, training=True), recompute=True)
    assert choose_way(model, job, 1, "fused", lambda _: None) == "fused, Triton [keep=inputs]"
    assert choose_way(model, job, LONG, "fused", lambda _: None) == "fused, Triton [products=triton keep=inputs]"
    assert cache.load_plan(replace(job, recompute=False)) is None


def test_what_recomputes(monkeypatch: pytest.MonkeyPatch, small_model: Make, job_of: MakeJob) -> None:
    monkeypatch.setattr(ways, "reason_against", lambda *job: None)
    job = replace(job_of(small_model(), training=True), recompute=True)
    assert [way.kind for way in ways_for(job)] == ["eager", "eager", "fused"]
    for way in ways_for(job):
        model = small_model()
        way.network(model, job)
        assert model.recompute
        # An evaluation in between does not end it.
        way.network(model, job_of(model))
        assert model.recompute
    names = [way.full_name for way in ways_for(replace(job, device=torch.device("cuda")))]
    assert names[2:] == ["fused, Triton [keep=inputs]", "fused, Triton, CUDA graph [keep=inputs]"]


def test_forms_that_cannot_be_timed_are_the_default_ones(
    small_model: Make, job_of: MakeJob, tuning: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Plan:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sys.modules["convmixer.kernels.tuning"], "tuned_plan", broken)
    model, said = small_model(), []
    job = job_of(model, training=True)
    assert choose_way(model, job, LONG, "auto", said.append) == "fused, Triton"
    assert said[1] == ("execution: forms not timed, the default ones are taken (OutOfMemoryError: CUDA out of memory)")
    assert cache.load_plan(job) is None
