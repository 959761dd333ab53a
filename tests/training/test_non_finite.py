"""The check of each step's numbers, at once and a step later: who is named, what is left untouched, what waits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import Command, Done, Run, ToyOptions, Train
from tests.networks import Operations
from tests.reliability.conftest import assert_equal, assert_same_checkpoint, newest
from torch import nn

from convmixer.augment.pipeline import Augmentation
from convmixer.config.augment import AugmentOptions
from convmixer.config.optimizer import OptimizerOptions
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import create_model
from convmixer.precision import Precision
from convmixer.training import step as step_module
from convmixer.training.checkpointing.state import TrainState
from convmixer.training.ema import Ema
from convmixer.training.loading.train_batch import TrainBatch
from convmixer.training.loss import soft_cross_entropy
from convmixer.training.loss_scaler import LossScaler
from convmixer.training.non_finite import FiniteCheck, NonFinite
from convmixer.training.optimizer import create_optimizer
from convmixer.training.step import TrainStep

PREPROCESSING = Preprocessing(size=8)
# All that a recipe for CIFAR-10 may do to a batch.
SETTINGS = AugmentOptions(
    auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel", mixup=0.2, cutmix=1.0, label_smoothing=0.1
)


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of a GPU on this CPU."""
    monkeypatch.setattr(step_module, "DEFERRED_DEVICES", {"cpu", "cuda"})


class Network(nn.Module):
    """The model; logits of the calls `bad` are NaN, so that loss and gradients are too."""

    def __init__(self, model: nn.Module, bad: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.bad, self.calls = model, bad, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        self.calls += 1
        return logits * math.nan if self.calls - 1 in self.bad else logits


def batches_of(step: int, device: str = "cpu") -> list[TrainBatch]:
    """Two micro-batches of four images; an image's index tells its step."""
    generator = torch.Generator().manual_seed(step)
    made = []
    for micro in range(2):
        images = torch.randint(256, (4, 8, 8, 3), generator=generator, dtype=torch.uint8)
        labels = torch.randint(5, (4,), generator=generator)
        if device == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        made.append(TrainBatch(images, labels, np.arange(4) + 8 * step + 4 * micro, 0, []))
    return made


def step_of(
    *, bad: tuple[int, ...] = (), optimizer: Any = "adamw", device: str = "cpu", scaler: LossScaler | None = None
) -> TrainStep:
    torch.manual_seed(0)
    on = torch.device(device)
    model = create_model("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=5).to(on).train()
    if callable(optimizer):
        made = optimizer(model)
    else:
        made = create_optimizer(model, OptimizerOptions(optimizer=optimizer, weight_decay=0.05))
    state = TrainState(model, made, scaler or LossScaler(), Ema(model, 0.99))
    precision = Precision(torch.float32, device, "fp32")
    augment = Augmentation(SETTINGS, PREPROCESSING, 5, seed=1)
    return TrainStep(Network(model, bad), state, augment, precision, lambda _: 0.01, device=on, clip_norm=1.0)


def parts_of(step: TrainStep) -> dict[str, Any]:
    """A copy of what a bad step must leave as it was: parameters, moments, averages but for BatchNorm's counts."""
    state = step.state
    assert state.ema is not None
    parameters = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    averages = {name: t.clone() for name, t in state.ema.weights().items() if t.is_floating_point()}
    moments = [
        {name: value.clone() for name, value in state.optimizer.state[p].items()} for p in state.model.parameters()
    ]
    return {"parameters": parameters, "averages": averages, "moments": moments, "updates": state.ema.updates}


def run(step: TrainStep, steps: range) -> None:
    for number in steps:
        step(batches_of(number))


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "momentum", "sgd"])
@pytest.mark.parametrize("found_by", ["next step", "check_pending"])
@pytest.mark.parametrize("part", [0, 1])
def test_a_bad_step_leaves_all_as_before_it(optimizer: str, found_by: str, part: int) -> None:
    step = step_of(bad=(6 + part,), optimizer=optimizer)
    run(step, range(3))
    before = parts_of(step)
    step(batches_of(3))
    assert step.state.step == 4, "the host goes on"
    with pytest.raises(NonFinite, match=r"^step 3: loss nan, gradient norm nan; stopped before the update") as caught:
        step.check_pending() if found_by == "check_pending" else step(batches_of(4))
    assert step.state.step == caught.value.step == 3
    assert caught.value.indices == list(range(24, 32))
    assert_equal(parts_of(step), before, "state")


def _rmsprop(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(model.parameters(), lr=0.1)


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize("bad", [0, 5])
@pytest.mark.parametrize("optimizer", [_rmsprop, "lion", "lamb", "muon", "schedule_free"])
def test_with_an_optimizer_that_ignores_found_inf_too(bad: int, optimizer: Any) -> None:
    """It would take the step of numbers that are not finite: so these are waited for, and the step is never called."""
    step = step_of(bad=(bad,), optimizer=optimizer)
    run(step, range(bad // 2))
    before = parts_of(step)
    with pytest.raises(NonFinite, match=rf"^step {bad // 2}: loss nan"):
        step(batches_of(bad // 2))
    assert step.state.step == bad // 2
    assert_equal(parts_of(step), before, "state")


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
def test_a_bad_first_step_leaves_moments_of_zero(optimizer: str) -> None:
    step = step_of(bad=(0,), optimizer=optimizer)
    step(batches_of(0))
    with pytest.raises(NonFinite, match=r"^step 0"):
        step.check_pending()
    moments = [value for state in step.state.optimizer.state.values() for value in state.values()]
    assert len(moments) > 0
    assert all(not value.any() for value in moments)


@pytest.mark.usefixtures("deferred")
def test_the_first_bad_step_is_named_and_no_later_one_updates() -> None:
    # The flag alone holds back step 2: its own numbers are finite.
    step = step_of(bad=(2,))
    run(step, range(1))
    before = parts_of(step)
    step(batches_of(1))
    with pytest.raises(NonFinite, match=r"^step 1:"):
        step(batches_of(2))
    assert_equal(parts_of(step), before, "state")


def test_both_checks_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = step_of(scaler=LossScaler("fixed", 512.0))
    run(at_once, range(4))
    monkeypatch.setattr(step_module, "DEFERRED_DEVICES", {"cpu"})
    later = step_of(scaler=LossScaler("fixed", 512.0))
    run(later, range(4))
    later.check_pending()
    left, right = parts_of(at_once), parts_of(later)
    averages, others = left.pop("averages"), right.pop("averages")
    assert_equal(left, right, "state")
    for name, tensor in averages.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("numbers", [(math.nan, 1.0), (1.0, math.inf), (-math.inf, math.nan)])
def test_at_once_it_raises_by_itself(numbers: tuple[float, float]) -> None:
    loss, grad_norm = map(torch.tensor, numbers)
    with pytest.raises(NonFinite, match=f"step 7: loss {numbers[0]:g}, gradient norm {numbers[1]:g}"):
        FiniteCheck(deferred=False)(7, loss, grad_norm, [])


def test_deferred_it_tells_of_steps_in_their_order() -> None:
    check, fine, bad = FiniteCheck(deferred=True), torch.tensor(1.0), torch.tensor(math.inf)
    flags = [check(step, loss, fine, []) for step, loss in enumerate((fine, bad, bad, fine))]
    assert [flag.item() for flag in flags if flag is not None] == [0.0, 1.0, 1.0, 1.0]
    check.check_pending(leave=3)
    with pytest.raises(NonFinite, match=r"^step 1"):
        check.check_pending(leave=1)


class NoWait(Operations):
    """Fails on what would make the host wait for a GPU: a value brought to the host, a shape that depends on values."""

    WAITING = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.removeprefix("_unsafe_")
        masks = [i for i in args[1] if i is not None and i.dtype == torch.bool] if name.startswith("index") else []
        if name in self.WAITING or masks:
            raise AssertionError(f"{func} waits for the device")
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
@pytest.mark.usefixtures("deferred")
def test_no_step_waits_for_the_device(optimizer: str) -> None:
    step = step_of(optimizer=optimizer)
    with NoWait():
        run(step, range(3))
    step.check_pending()


def test_the_probe_sees_what_waits() -> None:
    x = torch.tensor([1.0, 2.0])
    for waits in (lambda: x[0].item(), lambda: bool(x[0] > 0), x.nonzero, lambda: x[x > 1], lambda: float(x[0])):
        with pytest.raises(AssertionError, match="waits for the device"), NoWait():
            waits()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_no_step_waits_for_a_gpu() -> None:
    step = step_of(device="cuda")
    batches = [batches_of(number, "cuda") for number in range(5)]
    for one in batches[:2]:
        step(one)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in batches[2:]:
            step(one)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    step.check_pending()


# Whole runs. Nothing is shown or saved but where a test asks for it, so that steps are checked a step later.
QUIET = {"batch_size": 2, "print_loss_every": 99, "summary_loss_collect_freq": 99, "ckpt_save_every_step": 3}
OPTIONS = ("--with_ema", "--mixup=0.4", "--re_prob=0.5", "--use_clip_grad_norm")


@pytest.fixture
def bad_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Sets the training step, counted from the start of the process, whose loss is NaN."""
    real, calls = soft_cross_entropy, [0]
    bad: list[int | None] = [None]

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return real(logits, targets) * (math.nan if calls[0] - 1 == bad[0] else 1.0)

    def choose(step: int | None) -> None:
        bad[0], calls[0] = step, 0

    monkeypatch.setattr("convmixer.training.trial.create_loss", lambda *_: loss)
    return choose


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize(("bad", "kept"), [(4, 3), (5, 3), (11, 9), (12, 12)])
def test_a_run_with_a_bad_step_resumes_to_the_bit(
    bad: int,
    kept: int,
    train: Train,
    convmixer: Command,
    here: Path,
    toy: Path,
    toy_options: ToyOptions,
    bad_loss: Callable[[int | None], None],
    tmp_path: Path,
) -> None:
    # 12 steps per epoch; step 5 is the last before a save, 11 before an evaluation.
    whole = train(*OPTIONS, **QUIET)
    (here / "runs").rename(tmp_path / "whole")
    options = [*toy_options(toy, **QUIET), *OPTIONS]
    bad_loss(bad)
    failed = convmixer("train", *options)
    assert failed.code == 1
    assert failed.error.startswith(f"step {bad}: loss nan")
    stopped = Run.below(here, failed)
    assert newest(stopped.checkpoints).name == f"step_{kept:08d}"
    (record,) = stopped.summary.glob("non_finite_step_*.json")
    assert json.loads(record.read_text())["step"] == bad
    assert (stopped.summary / "non_finite" / f"step_{bad:08d}" / "state.pt").is_file()
    assert len(stopped.metrics("eval")) == bad // 12
    assert stopped.metrics("train") == []
    bad_loss(None)
    resumed = convmixer("train", *options, "--resume=auto")
    assert resumed.code == 0, resumed.err
    last = newest(tmp_path / "whole/checkpoints" / whole.name)
    assert_same_checkpoint(last, newest(stopped.checkpoints))


def diverge(convmixer: Command, options: list[str]) -> tuple[Done, dict[str, Any]]:
    done = convmixer("train", *options, "--debug_nan")
    assert done.code == 1
    (record,) = Path("runs").glob("summary/*/non_finite_step_*.json")
    return done, json.loads(record.read_text())


def test_both_checks_tell_the_same(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = [
        *toy_options(toy, **QUIET | {"base_lr": 1e18, "lr_scheduler": "constant_lr", "ckpt_save_every_step": 0}),
        *OPTIONS,
    ]
    at_once, record = diverge(convmixer, options)
    (here / "runs").rename(tmp_path / "first")
    monkeypatch.setattr(step_module, "DEFERRED_DEVICES", {"cpu"})
    later, other = diverge(convmixer, options)
    assert 0 < record["step"] < 11
    assert record["where"].startswith("micro-batch 0: ")
    assert other == record
    assert later.error == at_once.error


def test_saved_state_of_a_bad_step_is_that_before_its_update() -> None:
    """What the diagnostic dump may hold beside it: running statistics that have seen the bad images, at once too."""
    step = step_of(bad=(2,))
    run(step, range(1))
    before, running_mean = parts_of(step), step.state.model.get_buffer("stem.norm.running_mean")
    statistics = running_mean.clone()
    with pytest.raises(NonFinite):
        step(batches_of(1))
    assert_equal(parts_of(step), before, "state")
    assert not torch.equal(running_mean, statistics)
