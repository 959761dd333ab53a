"""Signals in an evaluation and while a checkpoint is written: the run saves, and its resumed twin ends equal."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Command, Run, ToyOptions, Train
from tests.reliability.conftest import assert_same_checkpoint, metrics, newest

from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.training.checkpointing import manager


def signalled(function: Callable[..., Any], number: signal.Signals) -> Callable[..., Any]:
    """The function, whose first call sends a signal to this process."""
    calls: list[None] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not calls:
            calls.append(None)
            signal.raise_signal(number)
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize(
    ("owner", "name", "step", "number", "code"),
    [
        (TorchRuntime, "logits", 3, signal.SIGHUP, 129),
        (manager, "save_checkpoint", None, signal.SIGUSR1, 138),
        pytest.param(TorchRuntime, "logits", 3, signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(manager, "save_checkpoint", None, signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_it_saves_and_the_rest_is_equal(
    owner: Any,
    name: str,
    step: int | None,
    number: signal.Signals,
    code: int,
    train: Train,
    convmixer: Command,
    toy: Path,
    toy_options: ToyOptions,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train("--with_ema")
    shutil.move(here / "runs", tmp_path / "runs")
    kept = Run.below(tmp_path, whole.done)
    monkeypatch.setattr(owner, name, signalled(getattr(owner, name), number))
    done = convmixer("train", *toy_options(toy), "--with_ema")
    assert done.code == code, done.err
    (run,) = (here / "runs/checkpoints").iterdir()
    if step is not None:
        assert newest(run).name == f"step_{step:08d}"
    done = convmixer("train", *toy_options(toy), "--with_ema", "--resume=auto")
    assert done.code == 0, done.err
    resumed = Run.below(here, done)
    assert_same_checkpoint(newest(kept.checkpoints), newest(resumed.checkpoints))
    assert metrics(kept.summary) == metrics(resumed.summary)
