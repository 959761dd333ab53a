"""SIGTERM in an evaluation and while a checkpoint is written: the run saves, and its resumed twin ends equal."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Command, Run, ToyOptions, Train
from tests.reliability.conftest import assert_same_checkpoint, metrics, newest

from convmixer.runtime.torch_runtime import TorchRuntime
from convmixer.train import saver


def signalled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose first call sends SIGTERM to this process."""
    calls: list[None] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not calls:
            calls.append(None)
            signal.raise_signal(signal.SIGTERM)
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize(
    ("owner", "name", "step"),
    [(TorchRuntime, "logits", 3), (saver, "save_checkpoint", None)],
    ids=["evaluation", "saving"],
)
def test_sigterm_saves_and_the_rest_is_equal(
    owner: Any,
    name: str,
    step: int | None,
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
    monkeypatch.setattr(owner, name, signalled(getattr(owner, name)))
    done = convmixer("train", *toy_options(toy), "--with_ema")
    assert done.code == 143, done.err
    (run,) = (here / "runs/checkpoints").iterdir()
    if step is not None:
        assert newest(run).name == f"step_{step:08d}"
    done = convmixer("train", *toy_options(toy), "--with_ema", "--resume=auto")
    assert done.code == 0, done.err
    resumed = Run.below(here, done)
    assert_same_checkpoint(newest(kept.checkpoints), newest(resumed.checkpoints))
    assert metrics(kept.summary) == metrics(resumed.summary)
