"""`convmixer plan`: its table and its record, and that it leaves nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import Command, ToyOptions, Train

from convmixer.arch import architecture
from convmixer.model import ConvMixer


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    from convmixer.planning import plan
    from convmixer.training.throughput import measured

    monkeypatch.setattr(plan, "measured", lambda run: measured(run, seconds=0.2))


def test_the_table_and_the_record(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, train: Train
) -> None:
    words = [*toy_options(toy, epochs=4), "--with_ema", "--execution=eager"]
    done = convmixer("plan", *words, "--json", "plan.json")
    assert done.code == 0, done.err
    assert [path.name for path in here.iterdir()] == ["plan.json"]
    record = json.loads(Path("plan.json").read_text())
    for row in ("network", "steps", "training", "device alone", "input alone", "bound by", "memory", "time", "disk"):
        assert row in done.out
    assert "! ema_decay 0.9999 averages over 10,000 steps of 12" in done.out
    model = ConvMixer(architecture("convmixer_8_2", kernel_size=3, patch_size=2, num_classes=3))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert record["parameters"] == count
    # 16 positions of a stem of 8 x 3 x 4, and two blocks of 8 x (9 + 8); the head.
    assert record["macs"] == 16 * (96 + 2 * 136) + 24
    assert (record["steps_per_epoch"], record["steps"], record["epochs"], record["evaluations"]) == (3, 12, 4, 4)
    # fp32: two moments of each parameter and AdamW's count of steps of each tensor; statistics have no moments.
    tensors = len(list(model.parameters()))
    assert record["memory"]["optimizer"] == 2 * 4 * count + 4 * tensors
    state = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert record["memory"]["weights"] == record["memory"]["average"] == state
    assert record["memory"]["step"] > 4 * count  # the gradients at least
    assert min(record["speed"][name] for name in ("first", "later", "device", "input", "evaluation")) > 0
    assert record["seconds"] == pytest.approx(record["training_seconds"] + record["evaluation_seconds"])


def test_the_disk_is_what_a_run_leaves(convmixer: Command, toy: Path, toy_options: ToyOptions, train: Train) -> None:
    words = ["--arch=convmixer_256_4", "--ckpt_keep_num=2", "--with_ema", "--execution=eager"]
    assert convmixer("plan", *toy_options(toy), *words, "--json=plan.json").code == 0
    run = train(*words)
    left = sum(
        path.stat().st_size for folder in (run.checkpoints, run.best) for path in folder.rglob("*") if path.is_file()
    )
    assert json.loads(Path("plan.json").read_text())["disk"] == pytest.approx(left, rel=0.03)


def test_measured_are_steps_of_all_that_learns(convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    def step(*words: str) -> int:
        assert convmixer("plan", *toy_options(toy, epochs=2), "--execution=eager", *words, "--json=p.json").code == 0
        memory: dict[str, int] = json.loads(Path("p.json").read_text())["memory"]
        return memory["step"]

    whole = step()
    assert step("--unfreeze_epoch=1") == whole  # its first epoch takes less
    assert step("--unfreeze_epoch=2") < whole


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--device_num=2"], "device_num: plan measures in one process"),
        (["--resume=auto"], "--resume: plan looks at a new run"),
        (["--freeze"], "--freeze: takes no steps, which plan measures"),
        (["--json=nowhere/a.json"], "nowhere/a.json cannot be written"),
        (["--image_size=1"], "image_size"),
    ],
)
def test_wrong_use_is_a_line(
    words: list[str], error: str, convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    done = convmixer("plan", *toy_options(toy), *words)
    assert done.code == 2
    assert error in done.error
    assert list(here.iterdir()) == []
