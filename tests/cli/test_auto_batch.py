"""`--batch_size auto`: which batch is taken, that it is saved as a number, and that a run keeps it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tests.conftest import COUNTS, Command, Run, ToyOptions, Train, draw_images

from convmixer import machine
from convmixer.training import auto_batch
from convmixer.training.auto_batch import ORIGIN
from convmixer.training.memory_use import largest

AUTO = ["--batch_size=auto", "--execution=eager"]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    draw_images(tmp_path / "many", {**COUNTS, "train": (100, 100, 100)})
    return tmp_path / "many"


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], None]:
    """Has steps run at a known speed, which no shared machine gives."""

    def run_at(speed: Callable[[int], float]) -> None:
        def images_per_second(self: object, seconds: float, least: int = 2) -> float:
            return speed(self.run.config.batch_size)  # type: ignore[attr-defined]

        monkeypatch.setattr("convmixer.training.trial.Trial.images_per_second", images_per_second)

    return run_at


def test_it_is_saved_as_a_number_and_a_resumed_run_keeps_it(
    train: Train, convmixer: Command, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(*AUTO, folder=many)
    text = (run.summary / "config.yaml").read_text()
    batch = yaml.safe_load(text)["batch_size"]
    assert 8 <= batch <= 32
    assert f"batch_size: {batch}  # {ORIGIN}" in text
    assert f"batch_size auto: {batch}; " in run.done.err
    assert "base_lr is not scaled with it" in run.done.err
    monkeypatch.setattr(auto_batch, "_Search", None)  # nothing is measured any more
    done = convmixer("train", "--resume=auto", "--batch_size=auto", "--epochs=3", "--force_resume")
    assert done.code == 0, done.err
    assert f"batch_size auto: {batch}, as the run has had it" in done.err


def test_a_frozen_network_has_one_too(
    train: Train, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = train(*AUTO, "--freeze", folder=many)
    assert run.done.code == 0, run.done.err
    assert "batch_size auto: " in run.done.err


@pytest.mark.parametrize(
    ("speed", "batch"),
    [
        (lambda batch: 1000.0 * batch, 32),  # 300 images in eight steps are 37 at most
        (lambda batch: 1000.0 * min(batch, 16), 16),
        (lambda batch: 1000.0 * batch**0.05, 8),  # 3.5 % more with each doubling
    ],
)
def test_no_more_than_is_worth_it(
    speed: Callable[[int], float],
    batch: int,
    rates: Callable[[Callable[[int], float]], None],
    train: Train,
    many: Path,
) -> None:
    rates(speed)
    assert f"batch_size auto: {batch}; " in train(*AUTO, folder=many, epochs=1).done.err


def test_no_more_than_memory_holds(
    rates: Callable[[Callable[[int], float]], None],
    convmixer: Command,
    many: Path,
    toy_options: ToyOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates(lambda batch: 1000.0 * batch)
    words = [*toy_options(many, image_size=64, epochs=1, cache="none"), *AUTO]
    for free, said in ((20 << 20, "twice as many need more than half of the free memory"), (1 << 10, "not even two")):
        monkeypatch.setattr(machine, "memory", lambda free=free: (1 << 34, free))
        done = convmixer("plan" if free < 1 << 20 else "train", *words)
        assert said in done.err
        assert done.code == (1 if free < 1 << 20 else 0)


def test_a_small_set_has_eight_steps_per_epoch(train: Train) -> None:
    # 24 images: 3 in each of eight steps, and of powers of two 2.
    run = train(*AUTO, epochs=1)
    assert "batch_size auto: 2; an epoch has at least 8 steps" in run.done.err
    assert "12 steps per epoch" in run.done.err


@pytest.mark.parametrize("limit", [2, 100, 177, 1 << 30])
def test_on_a_gpu_what_fits_by_steps_that_run(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search with a device that holds so many images."""
    for name, value in {
        "mem_get_info": lambda device: (100, 100),
        "memory_reserved": lambda device: 0,
        "max_memory_reserved": lambda device: 0,
        "reset_peak_memory_stats": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    tried: list[int] = []

    class Tried:
        def __init__(self, batch: int) -> None:
            self.batch, self.step = batch, self
            tried.append(batch)

        def pixels(self) -> int:
            return self.batch

        def __call__(self, pixels: int) -> None:
            if pixels > limit:
                raise torch.OutOfMemoryError("too many")

        def check_pending(self) -> None: ...

    @contextlib.contextmanager
    def trial(batch: int) -> Iterator[Tried]:
        yield Tried(batch)

    monkeypatch.setattr(auto_batch, "trial", trial)
    batch, why = auto_batch._Search(lambda batch: batch, torch.device("cpu"), 1000).on_gpu()  # type: ignore[arg-type, return-value]
    assert batch <= limit
    assert batch % 8 == 0 or batch < 8
    assert limit - batch <= limit // 8 + 8 or batch == 1000
    assert ("eight" in why or "8 steps" in why) == (limit > 1000)


def test_the_bound_of_the_search() -> None:
    assert largest(lambda batch: True, most=100) == 100
    assert largest(lambda batch: batch <= 70, most=100, precision=1000) == 70
    assert largest(lambda batch: True, most=5) == 5


def test_eval_takes_its_default(convmixer: Command, toy: Path, weights: Path) -> None:
    words = [f"--data_url={toy}", f"--pretrained={weights}", "-j0"]
    assert convmixer("eval", *words, "--batch_size=auto").out == convmixer("eval", *words).out


@pytest.mark.slow
def test_several_processes_agree(here: Path, convmixer: Command, many: Path, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(many, epochs=1), *AUTO, "--device_num=2")
    assert done.code == 0, done.err
    run = Run.below(here, done)
    batch = yaml.safe_load((run.summary / "config.yaml").read_text())["batch_size"]
    assert run.metrics("train")[-1]["step"] == 300 // (2 * batch)
    assert batch <= 16  # 300 images, two processes, eight steps
