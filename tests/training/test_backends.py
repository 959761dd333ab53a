"""The backends of a training run: tried before it starts, kept in its checkpoints, and those of its evaluations."""

from __future__ import annotations

import ast
import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backends.autotune.test_fallback import FailsBackward, FailsForward, NoMemory, NoMemoryOnACpu, Right
from tests.backends.conftest import EAGER, backend
from tests.conftest import Command, Run, ToyOptions, Train, run_command
from tests.reliability.conftest import assert_same_checkpoint, metrics, newest

from convmixer.backends import registry as backends
from convmixer.backends.autotune import choose
from convmixer.backends.autotune.benchmark import Timing


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def found_fastest(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the backends beside eager, all of which a measurement has found right, and the last one the fastest."""

    def offer(*offered: backends.Backend) -> None:
        monkeypatch.setattr(backends, "BACKENDS", (EAGER, *offered))
        monkeypatch.setattr(choose, "OUTLASTS", 0.0)
        monkeypatch.setattr(
            choose,
            "benchmark",
            lambda backends, *_: {backend.full_name: Timing(1.0 / n, 0.0) for n, backend in enumerate(backends, 1)},
        )

    return offer


def backends_in(run: Run) -> tuple[str, str]:
    state = torch.load(newest(run.checkpoints) / "state.pt", weights_only=True)
    return state["way"], state["evaluation_way"]


@pytest.mark.parametrize("failing", [FailsForward, FailsBackward])
def test_a_backend_that_was_found_fastest_and_fails_is_left_before_the_run(
    train: Train, found_fastest: Callable[..., None], failing: type[Right], toy: Path, here: Path
) -> None:
    found_fastest()
    plain = train()
    shutil.move(here / "runs", here / "plain")
    found_fastest(backend("broken", failing))
    run = train()
    assert "execution: broken failed (RuntimeError: no " in run.done.err
    assert backends_in(run)[0] == "eager, channels_last"
    # It has left no trace in weights and statistics.
    step = newest(run.checkpoints).name
    assert_same_model(here / "plain/checkpoints" / plain.name / step, run.checkpoints / step)


def assert_same_model(left: Path, right: Path) -> None:
    assert (left / "model.safetensors").read_bytes() == (right / "model.safetensors").read_bytes()


@pytest.mark.parametrize("failing", [FailsForward, FailsBackward])
def test_one_that_was_asked_for_ends_the_run_before_it_is_made(
    convmixer: Command,
    found_fastest: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    failing: type[Right],
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
) -> None:
    monkeypatch.setattr(backends, "BACKENDS", (EAGER, backend("broken", failing)))
    done = convmixer("train", *toy_options(toy), "--execution=fused")
    assert done.code == 1
    assert done.error.startswith("--execution: broken failed (RuntimeError: no ")
    assert not (here / "runs").exists()


@pytest.mark.parametrize(("greedy", "of"), [(NoMemory, "GPU memory"), (NoMemoryOnACpu, "memory")])
def test_too_little_memory_is_logged_as_in_a_step(
    convmixer: Command,
    monkeypatch: pytest.MonkeyPatch,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
    greedy: type[Right],
    of: str,
) -> None:
    monkeypatch.setattr(backends, "BACKENDS", (EAGER, backend("greedy", greedy)))
    done = convmixer("train", *toy_options(toy), "--execution=fused")
    assert done.code == 1
    assert done.error.startswith(f"out of {of} with batch_size 8 at 8 pixels; ")
    assert not (here / "runs").exists()


@pytest.mark.parametrize("words", [["--with_ema"], ["--unfreeze_epoch=2"], []])
def test_an_evaluation_by_another_backend_scores_the_weights_of_now(
    words: list[str], train: Train, convmixer: Command, toy: Path, toy_options: ToyOptions
) -> None:
    run = train(*words, "--execution=fused")
    assert backends_in(run) == ("fused, oneDNN", "fused, oneDNN")
    *_, last = run.metrics("eval")
    done = convmixer("eval", *toy_options(toy), f"--pretrained={newest(run.checkpoints)}")
    scores = ast.literal_eval(done.out.removeprefix("eval results: "))
    assert {name: last[name] for name in scores} == pytest.approx(scores, rel=1e-5)


def test_a_resumed_run_evaluates_as_before(
    train: Train, toy: Path, toy_options: ToyOptions, here: Path, found_fastest: Callable[..., None]
) -> None:
    options = {"ckpt_save_every_step": 1, "ckpt_keep_num": 99}
    run = train("--with_ema", "--execution=fused", **options)
    last, log = newest(run.checkpoints), metrics(run.summary)
    shutil.copytree(run.checkpoints, here / "whole")
    for path in run.checkpoints.iterdir():
        if path.name > "step_00000002":
            shutil.rmtree(path)
    # What would be measured now is another backend.
    found_fastest(*(one for one in backends.BACKENDS if one.kind == "fused"), backend("newer", Right))
    done = run_command("train", *toy_options(toy, **options), "--with_ema", "--resume=auto")
    assert done.code == 0, done.err
    assert "newer" not in done.err
    assert_same_checkpoint(here / "whole" / last.name, newest(run.checkpoints))
    assert metrics(run.summary) == log


def test_a_checkpoint_of_before_has_no_backend_of_evaluating(
    train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    from tests.reliability.test_exact_resume import rewrite_manifest

    run = train(ckpt_save_every_step=1, ckpt_keep_num=99)
    folder = next(path for path in sorted(run.checkpoints.iterdir()) if path.name == "step_00000002")
    for path in run.checkpoints.iterdir():
        if path.name > folder.name:
            shutil.rmtree(path)
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state.pop("evaluation_way") == "eager"
    torch.save(state, folder / "state.pt")
    rewrite_manifest(folder)
    done = run_command("train", *toy_options(toy, ckpt_save_every_step=1, ckpt_keep_num=99), "--resume=auto")
    assert done.code == 0, done.err
    assert backends_in(run)[1] == "eager"


@pytest.mark.slow
def test_nothing_of_an_evaluation_stays_while_training_goes_on(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[Any] = []
    alive_in_training: list[int] = []

    class Watched(Right):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.model.training:
                gc.collect()
                alive_in_training.append(sum(network() is not None for network in networks))
            return super().forward(images)

    def build(model: Any, workload: Any, plan: str) -> Right:
        network = Watched(model)
        if not workload.training:
            networks.append(weakref.ref(network))
        return network

    holding = backends.Backend("holding", "fused", lambda workload: True, build, holds_memory=True)
    monkeypatch.setattr(backends, "BACKENDS", (EAGER, holding))
    run = train("--execution=fused", epochs=3)
    assert backends_in(run) == ("holding", "holding")
    assert len(networks) == 3
    assert len(alive_in_training) > 3
    assert set(alive_in_training) == {0}


def test_an_evaluation_that_fails_is_made_eager(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = backends.Backend(
        "half",
        "fused",
        lambda workload: True,
        lambda m, workload, plan: (Right if workload.training else FailsForward)(m),
    )
    monkeypatch.setattr(backends, "BACKENDS", (EAGER, fused))
    run = train("--execution=fused")
    assert run.done.err.count("evaluation: half failed (RuntimeError: no forward pass); running eager") == 1
    assert len(run.metrics("eval")) == 2
    assert backends_in(run) == ("half", "eager")
