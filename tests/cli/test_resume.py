"""`--resume`: which checkpoint is found, and that a run that was stopped ends as one that was not."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_a_restarted_process_goes_on_with_the_run_that_was_resumed(
    stopped: Stopped, resume: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun starts it again: no run has the name of the time at which it was launched."""
    folder = stopped(4)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("CONVMIXER_RUN_TIME", "98-01-01_000000")
    done = resume("auto")
    assert done.code == 0
    assert "step_00000004: step 4, " in done.err
    assert [path.name for path in (here / "runs/checkpoints").iterdir()] == [folder.name]


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


def edited(checkpoint: Path, **changes: object) -> None:
    """Change a manifest as whoever tampers with it can: with its hash."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    del manifest["sha256"]
    for name in manifest["files"]:
        content = (checkpoint / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest))


def test_auto_takes_the_run_that_was_written_last(stopped: Stopped, resume: Command, here: Path) -> None:
    """A clock that was set back gave it the earlier name."""
    folder = stopped(4)
    later = here / "runs/checkpoints" / f"99-01-01_000000{folder.name[15:]}"
    shutil.copytree(folder, later)
    for checkpoint in later.iterdir():
        edited(checkpoint, written=1e9)
    done = resume("auto")
    assert done.code == 0
    assert f"resumed runs/checkpoints/{folder.name}/step_00000004: " in done.err
    warning = f"{folder.name} was written last and is taken, though {later.name} has the later date"
    assert done.err.count(warning) == 1
    assert sorted(path.name for path in later.iterdir()) == [f"step_{step:08d}" for step in (1, 2, 3, 4)]


def test_a_clock_that_was_set_back_is_logged(stopped: Stopped, resume: Command) -> None:
    folder = stopped(4)
    edited(folder / "step_00000004", written=time.time() + 7200)
    done = resume("auto")
    assert done.code == 0
    assert "was written 120 minutes from now: this machine's clock was set back, or is wrong" in done.err
    assert done.err.count("minutes from now") == 1


def test_an_older_step_that_was_written_later_is_logged(stopped: Stopped, resume: Command) -> None:
    folder = stopped(4)
    edited(folder / "step_00000002", written=time.time())
    done = resume(folder)
    assert done.code == 0
    assert "step_00000002: was written after step_00000004, which has the later step and is taken" in done.err


def test_a_run_does_not_write_where_a_manifest_sends_it(
    stopped: Stopped, resume: Command, here: Path, tmp_path: Path
) -> None:
    folder = stopped(4)
    (here / "runs").rename(tmp_path / "given")
    given = tmp_path / "given/checkpoints" / folder.name
    for kind in ("summary", "best"):
        for checkpoint in given.iterdir():
            edited(checkpoint, run={kind: str(tmp_path / "victim" / folder.name)})
        before = sorted(tmp_path.rglob("*"))
        done = resume(given)
        assert (done.code, done.out) == (2, "")
        assert (
            f"says that the run's {kind} folder is {tmp_path}/victim/{folder.name}, which is not beside it"
            in done.error
        )
        option = {"summary": "summary_root_dir", "best": "best_ckpt_root_dir"}[kind]
        assert f"--{option} {tmp_path}/victim goes on writing there" in done.error
        assert sorted(tmp_path.rglob("*")) == before
        # Asked for, it does; and the folders of the options are the way out.
        copy = tmp_path / kind / "checkpoints" / folder.name
        shutil.copytree(given, copy)
        assert resume(copy, f"--{option}={tmp_path}/victim").code == 0
        assert (tmp_path / "victim" / folder.name).is_dir()
        shutil.rmtree(tmp_path / "victim")
    done = resume(given, f"--ckpt_root_dir={given.parent}")
    assert done.code == 0
    assert not (tmp_path / "victim").exists()
    assert (here / "runs/best" / folder.name).is_dir()


def test_a_run_that_was_moved_as_a_whole_goes_on_where_it_lies(
    stopped: Stopped, resume: Command, here: Path, tmp_path: Path
) -> None:
    folder = stopped(4)
    (here / "runs").rename(tmp_path / "elsewhere")
    done = resume(tmp_path / "elsewhere/checkpoints" / folder.name)
    assert done.code == 0
    assert (tmp_path / "elsewhere/checkpoints" / folder.name / "step_00000006").is_dir()
    assert not (here / "runs").exists()


State = dict[str, Any]


def without(*names: str) -> Callable[[State], object]:
    return lambda state: {name: value for name, value in state.items() if name not in names}


def with_moment(value: object) -> Callable[[State], object]:
    def change(state: State) -> object:
        state["optimizer"]["state"][0]["exp_avg"] = value
        return state

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("identity"), "it does not say which run it belongs to (no identity)"),
        (lambda state: [1, 2], "it does not say which run it belongs to (no identity)"),
        (lambda state: state | {"identity": 3}, "it does not say which run it belongs to (no identity)"),
        (lambda state: state | {"identity": {"std": [3, "x", 2]}}, "its identity is of another type"),
        (without("step"), "it has no step"),
        (without("optimizer", "scaler"), "it has no optimizer"),
        (lambda state: state | {"step": "4"}, "its step is no whole number"),
        (lambda state: state | {"step": -1}, "its step or log_bytes is below 0"),
        (lambda state: state | {"ema_updates": None}, "its ema_updates is no whole number"),
        (lambda state: state | {"best_top1": "high"}, "its best_top1 or backend is of another type"),
        (lambda state: state | {"scaler": {"scale": "x"}}, "its scaler is no dictionary of numbers"),
        (lambda state: state | {"optimizer": 3}, "it is of another type than this program writes"),
        (lambda state: state | {"optimizer": {"state": {}, "param_groups": []}}, "its optimizer is another one"),
        (with_moment(torch.zeros(3)), "its optimizer's exp_avg does not fit parameter 0"),
        (with_moment("x"), "its optimizer's exp_avg does not fit parameter 0"),
    ],
)
def test_a_state_that_no_run_has_written(
    stopped: Stopped, resume: Command, here: Path, change: Callable[[State], object], reason: str
) -> None:
    checkpoint = stopped(1) / "step_00000001"
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    torch.save(change(state), checkpoint / "state.pt")
    edited(checkpoint)
    before = sorted(here.rglob("*"))
    done = resume(checkpoint, "--force_resume")
    assert (done.code, done.out) == (2, "")
    assert f"{checkpoint}/state.pt: no state of a training run: {reason}" in done.error
    assert f"--pretrained {checkpoint} starts a new run from its weights" in done.error
    assert len(done.error.splitlines()) == 2
    assert sorted(here.rglob("*")) == before


def test_a_checkpoint_of_the_first_version_goes_on(stopped: Stopped, resume: Command, uninterrupted: Path) -> None:
    """Its manifest had no hash, time or folders of its own, its state no backend, and its options were fewer."""
    folder = stopped(4)
    checkpoint = folder / "step_00000004"
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    identity = state["identity"]
    # What was left out was not filled in; nothing of this version is known.
    for name in ("sync_bn", "freeze", "interpolation of evaluation"):
        del identity[name]
    identity |= {"mean": None, "std": None}
    del state["way"]
    torch.save(state, checkpoint / "state.pt")
    edited(checkpoint)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    old = {"format": 1, "step": 4, "files": manifest["files"]}
    (checkpoint / "manifest.json").write_text(json.dumps(old))
    done = resume(folder)
    assert done.code == 0, done.err
    assert "step_00000004: step 4, " in done.err
    whole = uninterrupted / "runs/checkpoints" / folder.name / "step_00000006"
    assert differences(contents(folder / "step_00000006"), contents(whole)) == []


def test_a_checkpoint_that_was_moved_aside_is_found_again(
    stopped: Stopped, resume: Command, uninterrupted: Path
) -> None:
    folder = stopped(4)
    (folder / "step_00000004").rename(folder / ".step_00000004.aside")
    (folder / ".step_00000004.partial").mkdir()
    done = resume(folder)
    assert done.code == 0
    assert ".step_00000004.aside: step 4, " in done.err
    whole = uninterrupted / "runs/checkpoints" / folder.name / "step_00000006"
    assert differences(contents(folder / "step_00000006"), contents(whole)) == []
