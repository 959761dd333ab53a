"""`--resume`: which checkpoint is found, and that a run that was stopped ends as one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Command, ToyOptions, Train

Stopped = Callable[[int], Path]

# All that draws random numbers, and all that has a state of its own.
EVERYTHING = (
    "--with_ema",
    "--auto_augment=rand-m9-mstd0.5-inc1",
    "--re_prob=0.5",
    "--re_mode=pixel",
    "--mixup=0.5",
    "--cutmix=0.5",
    "--use_clip_grad_norm",
    "--ckpt_save_every_step=1",
)


@pytest.fixture
def resume(convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions) -> Command:
    """Train on the toy folder in `here` with `--resume`: `resume(path, *words)`."""
    return lambda path, *words, **changes: convmixer(
        "train", *toy_options(toy, **changes), *EVERYTHING, *words, "--resume", path
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture
def stopped(train: Train, here: Path, uninterrupted: Path) -> Stopped:
    """The folders of a run as they were after a step: `stopped(4)`, in `here`. The whole run is in `uninterrupted`."""
    if not (uninterrupted / "runs").exists():
        train(*EVERYTHING)
        shutil.move("runs", uninterrupted)

    def cut(step: int) -> Path:
        shutil.copytree(uninterrupted / "runs", here / "runs")
        (folder,) = (here / "runs/checkpoints").iterdir()
        for checkpoint in folder.iterdir():
            if int(checkpoint.name.removeprefix("step_")) > step:
                shutil.rmtree(checkpoint)
        return folder

    return cut


def contents(checkpoint: Path) -> dict[str, object]:
    """Both sets of weights and the rest of the state, but for what is not the training's own."""
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    for name in ("log_bytes", "identity"):
        del state[name]
    return {
        "model": load_file(checkpoint / "model.safetensors"),
        "ema": load_file(checkpoint / "ema.safetensors"),
        "state": state,
    }


def differences(one: object, other: object, name: str = "") -> list[str]:
    """Places at which two nested values differ, tensors to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [place for key in one for place in differences(one[key], other[key], f"{name}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [place for i in range(len(one)) for place in differences(one[i], other[i], f"{name}.{i}")]
    return [] if one == other else [name]


def without_rates(run_folder: Path) -> list[str]:
    """Lines of the metrics file, but for the speed at the time."""
    (summary,) = (run_folder / "runs/summary").iterdir()
    return [line.split(', "images_per_second"')[0] for line in (summary / "metrics.jsonl").read_text().splitlines()]


def test_a_run_resumed_in_mid_epoch_ends_as_the_one_that_was_not_stopped(
    stopped: Stopped, resume: Command, here: Path, uninterrupted: Path
) -> None:
    folder = stopped(4)
    done = resume(folder)
    assert done.code == 0
    assert "step_00000004: step 4, " in done.err
    for name in ("step_00000005", "step_00000006"):
        whole = uninterrupted / "runs/checkpoints" / folder.name / name
        assert differences(contents(folder / name), contents(whole)) == []
    assert without_rates(here) == without_rates(uninterrupted)
    assert [path.name for path in (here / "runs/best").iterdir()] == [folder.name]


def test_a_step_of_two_steps_can_be_compared(uninterrupted: Path, stopped: Stopped) -> None:
    """The comparison above is no formality: neighbouring steps differ in all three parts."""
    folder = stopped(6)
    found = differences(contents(folder / "step_00000003"), contents(folder / "step_00000004"))
    assert {name.split(".")[1] for name in found} == {"model", "ema", "state"}


def test_of_a_named_checkpoint_the_later_ones_are_made_again(
    stopped: Stopped, resume: Command, uninterrupted: Path
) -> None:
    folder = stopped(6)
    done = resume(folder / "step_00000003")
    assert done.code == 0
    assert "step 3, " in done.err
    whole = uninterrupted / "runs/checkpoints" / folder.name / "step_00000006"
    assert differences(contents(folder / "step_00000006"), contents(whole)) == []


def test_auto_takes_the_newest_run_of_the_same_name(stopped: Stopped, resume: Command, here: Path) -> None:
    folder = stopped(4)
    older = here / "runs/checkpoints" / f"20-01-01_000000{folder.name[15:]}"
    shutil.copytree(folder, older)
    other = here / "runs/checkpoints" / "99-01-01_000000_convmixer_16_2"
    shutil.copytree(folder, other)
    done = resume("auto")
    assert done.code == 0
    assert f"resumed runs/checkpoints/{folder.name}/step_00000004: " in done.err
    assert (folder / "step_00000006").is_dir()


def test_auto_without_a_run_starts_one(resume: Command, here: Path) -> None:
    done = resume("auto", epochs=1)
    assert done.code == 0
    assert "--resume auto: no run *_convmixer_8_2 with a checkpoint in runs/checkpoints, starting a new one" in done.err
    assert len(list((here / "runs/checkpoints").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "no manifest", "a file gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(stopped: Stopped, resume: Command, damage: str) -> None:
    folder = stopped(4)
    newest = folder / "step_00000004"
    content = (newest / "state.pt").read_bytes()
    if damage == "truncated":
        (newest / "state.pt").write_bytes(content[:-100])
    elif damage == "a flipped bit":
        (newest / "state.pt").write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    else:
        (newest / {"no manifest": "manifest.json", "a file gone": "ema.safetensors"}[damage]).unlink()
    done = resume(folder)
    assert done.code == 0
    assert f"{newest}: " in done.err
    assert "; trying the one before" in done.err
    assert "step_00000003: step 3, " in done.err


def test_without_a_whole_checkpoint_nothing_is_started(stopped: Stopped, resume: Command, here: Path) -> None:
    folder = stopped(2)
    for checkpoint in folder.iterdir():
        (checkpoint / "manifest.json").write_text("{")
    before = sorted(here.rglob("*"))
    done = resume(folder)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("--resume: no whole checkpoint in ")
    assert sorted(here.rglob("*")) == before


def test_a_finished_run_has_nothing_left_to_do(stopped: Stopped, resume: Command, uninterrupted: Path) -> None:
    folder = stopped(6)
    done = resume(folder)
    assert done.code == 0
    whole = uninterrupted / "runs/checkpoints" / folder.name / "step_00000006"
    assert differences(contents(folder / "step_00000006"), contents(whole)) == []


def test_other_data_are_refused(
    stopped: Stopped, convmixer: Command, toy_options: ToyOptions, own_toy: Path, here: Path
) -> None:
    folder = stopped(4)
    (own_toy / "train/red/0.png").rename(own_toy / "train/red/00.png")
    before = sorted(here.rglob("*"))
    done = convmixer("train", *toy_options(own_toy), *EVERYTHING, "--resume", folder)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("--resume: ")
    assert len(done.error.splitlines()) <= 2
    assert sorted(here.rglob("*")) == before
