"""Faults of disk, data, loaders and numbers, injected for real: what a run says, how it ends, and what is left."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.conftest import Command, Run, ToyOptions, Train, file_size_limit
from tests.reliability.conftest import Start, children, newest, wait_for

from convmixer.training.checkpointing.checkpoint import find_damage
from convmixer.training.error_messages import explain, out_of_memory


def tree_hash(folder: Path) -> str:
    """Names, contents and times of everything below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def limit_file_size(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))


def test_disk_full_while_a_checkpoint_is_written(
    start: Start, train: Train, toy: Path, toy_options: ToyOptions, here: Path
) -> None:
    run = train(epochs=1, arch="convmixer_64_4")
    (kept,) = run.checkpoints.iterdir()
    before = tree_hash(kept)
    (run.best / "best.safetensors").rename(here / "best")
    # The weights are larger than 60 kB, metrics and events are not.
    options = toy_options(toy, epochs=2, arch="convmixer_64_4", eval_every=2)
    process = start("train", *options, "--resume=auto", "--force_resume", preexec_fn=limit_file_size(60_000))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "File too large" in last_line(err)
    assert "Traceback" not in err
    assert tree_hash(kept) == before
    assert [path.name for path in run.checkpoints.iterdir()] == [kept.name]


def test_a_full_summary_disk_ends_the_events_and_not_the_run(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    """The events, then the metrics, grow past the limit; checkpoints and weights stay below it."""
    options = toy_options(toy, arch="convmixer_8_1", batch_size=1, epochs=7, eval_every=7, print_loss_every=60)
    with file_size_limit(20_000):
        done = convmixer("train", *options)
    assert done.code == 0, done.err
    assert done.err.count("File too large") == 2
    assert done.err.count("tensorboard: File too large: no more is logged to it; the run goes on") == 1
    assert done.err.count("metrics.jsonl: File too large: new lines wait in memory") == 1
    run = Run.below(here, done)
    assert newest(run.checkpoints).name == "step_00000168"
    steps = [entry["step"] for entry in run.metrics("train")]
    assert steps == list(range(1, len(steps) + 1))
    assert 90 < len(steps) < 168
    assert f"metrics.jsonl: the last {169 - len(steps)} lines could not be written" in done.err
    # With room again it goes on; the lines that were lost stay so.
    done = convmixer("train", *options, "--resume=auto", "--force_resume", "--epochs=8")
    assert done.code == 0, done.err
    assert [entry["step"] for entry in run.metrics("train")] == [*steps, *range(169, 193)]


def test_a_small_summary_disk(
    small_disk: Callable[[str], Path], convmixer: Command, toy: Path, toy_options: ToyOptions, here: Path
) -> None:
    disk = small_disk("40k")
    done = convmixer("train", *toy_options(toy, batch_size=1, epochs=7, eval_every=7), f"--summary_root_dir={disk}")
    assert done.code == 0, done.err
    for name in ("tensorboard", "metrics.jsonl"):
        assert done.err.count(f"{name}: No space left on device: ") == 1
    assert "predictions.csv: could not be written: No space left on device; the run goes on" in done.err
    assert done.err.count("No space left on device") == 3
    assert done.out.startswith("best: ")


def test_the_disk_of_the_best_weights_is_full(
    small_disk: Callable[[str], Path], convmixer: Command, toy: Path, toy_options: ToyOptions, here: Path
) -> None:
    """The run goes on to its end; resumed, when there is room, it writes what it could not."""
    disk = small_disk("64k")
    options = [*toy_options(toy), f"--best_ckpt_root_dir={disk}"]
    filler = disk / "filler"

    def fill(*_: object, **__: object) -> None:
        filler.write_bytes(bytes(60_000))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmixer.training.run_folders.check_space", fill)
        done = convmixer("train", *options)
    assert done.code == 1
    assert "the best weights, those of step " in done.error
    assert done.err.count("No space left on device. They are tried again") == 1
    (run,) = (here / "runs/checkpoints").iterdir()
    assert find_damage(newest(run)) is None
    logged = (here / "runs/summary" / run.name / "metrics.jsonl").read_text()
    filler.unlink()
    done = convmixer("train", *options, "--resume=auto")
    assert done.code == 0, done.err
    assert [path.name for path in disk.glob("*/*")] == ["best.safetensors"]
    again = (here / "runs/summary" / run.name / "metrics.jsonl").read_text()
    assert evaluations(again) == evaluations(logged)


def evaluations(log: str) -> list[tuple[int, float]]:
    entries = [json.loads(line) for line in log.splitlines()]
    return [(entry["step"], entry["Loss"]) for entry in entries if entry["kind"] == "eval"]


@pytest.mark.slow
def test_a_run_whose_folders_are_deleted_makes_them_again(
    start: Start, here: Path, toy: Path, toy_options: ToyOptions, convmixer: Command
) -> None:
    process = start("train", *toy_options(toy, epochs=5000, eval_every=5, ckpt_keep_num=2))
    wait_for(lambda: len(list((here / "runs/checkpoints").glob("*/step_*"))) >= 2)
    # Not in the middle of writing, which would end it: both its own folder and what is in it are gone at once.
    (here / "runs").rename(here / "gone")
    wait_for(lambda: len(list((here / "runs").glob("*/*/step_*"))) >= 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    (run,) = (here / "runs/checkpoints").iterdir()
    assert find_damage(newest(run)) is None
    assert (here / "runs/summary" / run.name / "metrics.jsonl").read_text()


def test_two_processes_do_not_write_one_run(
    start: Start, here: Path, toy: Path, toy_options: ToyOptions, convmixer: Command
) -> None:
    long = toy_options(toy, epochs=5000, eval_every=5000)
    first = start("train", *long)
    wait_for(lambda: len(list((here / "runs/checkpoints").glob("*/step_*"))) >= 1)
    refused = convmixer("train", *long, "--resume=auto")
    assert refused.code == 2
    assert f"process {first.pid} on " in refused.error
    assert len(refused.error.splitlines()) <= 2
    first.kill()
    first.wait()
    (run,) = (here / "runs/checkpoints").iterdir()
    assert (run / "run.lock").exists()
    epochs = int(newest(run).name.removeprefix("step_")) // 3 + 1
    changes = {"epochs": epochs, "eval_every": epochs}
    taken = convmixer("train", *toy_options(toy, **changes), "--resume=auto", "--force_resume")
    assert taken.code == 0, taken.err
    assert f"{run.absolute()}: process {first.pid} on " in taken.err
    assert not (run / "run.lock").exists()


def test_no_room_is_logged_before_the_first_step(
    convmixer: Command, toy: Path, toy_options: ToyOptions, small_disk: Callable[[str], Path], here: Path
) -> None:
    small = small_disk("64k")
    done = convmixer("train", *toy_options(toy, arch="convmixer_64_4"), f"--ckpt_root_dir={small}")
    assert done.code == 1
    assert "MiB free" in done.error
    assert "  loss " not in done.err
    assert not (here / "runs").exists()
    done = convmixer("train", *toy_options(toy, arch="convmixer_64_4"), f"--best_ckpt_root_dir={small}")
    assert done.code == 1
    assert "the best weights need " in done.error
    assert "--best_ckpt_root_dir" in done.error


def test_damaged_images_are_replaced_named_and_counted(train: Train, own_toy: Path) -> None:
    whole = (own_toy / "train/red/1.jpg").read_bytes()
    (own_toy / "train/red/1.jpg").write_bytes(whole[: len(whole) // 2])
    (own_toy / "train/blue/2.png").write_bytes(b"")
    (own_toy / "train/green/3.jpg").write_text("not an image")
    before = tree_hash(own_toy)
    run = train("--max_bad_share=0.2", folder=own_toy)
    for name in ("red/1.jpg", "blue/2.png", "green/3.jpg"):
        assert run.done.err.count(f"train/{name}: ") == 1
    assert len(run.metrics("train")) == 6
    assert tree_hash(own_toy) == before, "the data folder was changed"


def test_too_many_damaged_images_stop_the_run(convmixer: Command, own_toy: Path, toy_options: ToyOptions) -> None:
    (own_toy / "train/red/1.jpg").write_bytes(b"\xff\xd8\xff")
    done = convmixer("train", *toy_options(own_toy))
    assert done.code == 1
    assert "1 training images cannot be read" in done.error
    assert "red/1.jpg" in done.error
    assert "--max_bad_fraction" in done.error


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "ram"])
def test_killed_loader_worker(cache: str, start: Start, toy: Path, toy_options: ToyOptions) -> None:
    process = start(
        "train",
        *toy_options(toy, epochs=10_000, num_parallel_workers=2, print_loss_every=1, eval_every=9999, cache=cache),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "  loss " in line:
            break
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert "a loader process was killed; being read: " in last_line(err)
    assert str(toy) in last_line(err)


@pytest.mark.slow
def test_hanging_loader(start: Start, toy: Path, toy_options: ToyOptions) -> None:
    process = start(
        "train",
        *toy_options(toy, epochs=10_000, num_parallel_workers=1, print_loss_every=1, eval_every=9999),
        "--loader_timeout=3",
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "  loss " in line:
            break
    # Stopped, as a process is that waits for a file server that does not answer.
    os.kill(children(process.pid)[-1], signal.SIGSTOP)
    begin = time.monotonic()
    err = process.stderr.read()
    assert process.wait(timeout=90) == 1
    assert "gave no batch for 3 s" in last_line(err)
    assert str(toy) in last_line(err)
    assert time.monotonic() - begin < 60


def test_shared_memory_too_small(convmixer: Command, toy: Path, toy_options: ToyOptions, here: Path) -> None:
    options = toy_options(toy, image_size=4096, batch_size=4096, num_parallel_workers=64)
    done = convmixer("train", *options)
    assert done.code == 1
    assert "/dev/shm" in done.error
    assert not (here / "runs").exists()


def test_non_finite_loss(train: Train, convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    run = train(epochs=1)
    (kept,) = run.checkpoints.iterdir()
    before = tree_hash(kept)
    options = toy_options(toy, epochs=3, base_lr=1e30, lr_scheduler="constant_lr")
    done = convmixer("train", *options, "--resume=auto", "--force_resume", "--debug_nan")
    assert done.code == 1
    assert "stopped before the update" in done.error
    assert tree_hash(kept) == before
    (record,) = run.summary.glob("non_finite_step_*.json")
    content = json.loads(record.read_text())
    assert content["loss"] == "nan"
    assert len(content["images"]) == len(content["indices"]) == 8
    assert all(Path(name).is_file() for name in content["images"])
    assert content["where"].startswith("micro-batch 0: forward: first non-finite output at blocks.")
    assert (run.summary / "non_finite" / f"step_{content['step']:08d}" / "state.pt").is_file()
    assert "loss nan" not in done.out


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    from convmixer.arch import architecture
    from convmixer.errors import UserError
    from convmixer.model import create_model
    from convmixer.runs.folders import RunFolders
    from convmixer.training.checkpointing.manager import CheckpointManager
    from convmixer.training.checkpointing.state import TrainState
    from convmixer.training.loss_scaler import LossScaler

    model = create_model("convmixer_8_1", kernel_size=3, patch_size=2, num_classes=2)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1), LossScaler())
    arch = architecture("convmixer_8_1", kernel_size=3, patch_size=2, num_classes=2)
    folders = RunFolders("run", tmp_path / "s", tmp_path / "c", tmp_path / "b")
    checkpoint_manager = CheckpointManager(folders, {"architecture": arch}, {}, keep=2)
    checkpoint_manager.save_checkpoint(state)
    checkpoint_manager.finish()
    model.get_parameter("blocks.0.pointwise.weight").data[0] = float("inf")
    state.step = 1
    with pytest.raises(UserError, match=r"step 1: blocks\.0\.pointwise\.weight is not finite"):
        checkpoint_manager.save_checkpoint(state)
    assert newest(tmp_path / "c").name == "step_00000000"


@pytest.mark.parametrize("recompute", [False, True])
def test_out_of_gpu_memory_names_the_ways_out(recompute: bool) -> None:
    """--recompute first, where it is not on: it leaves what is learnt as it is."""

    class Plan:
        batch_size = 64

    class FakeLoader:
        sampler = Plan()

    error = explain(
        torch.OutOfMemoryError("CUDA out of memory"),
        FakeLoader(),  # type: ignore[arg-type]
        image_size=224,
        processes=1,
        recompute=recompute,
    )
    assert error is not None
    assert error.exit_code == 1
    assert str(error).startswith("out of GPU memory with batch_size 64 at 224 pixels; ")
    named = [word for word in re.split(r"[ ;,()]+", str(error)) if word.startswith("--")]
    ways = ["--batch_size", "--accumulate", "--amp_level", "--image_size"]
    assert named == (ways if recompute else ["--recompute", *ways])


def test_out_of_the_machines_memory_does_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    error = out_of_memory(caught.value, 8, 224, recompute=False)
    assert str(error).startswith("out of memory with batch_size 8 at 224 pixels; use --recompute ")
    assert out_of_memory(RuntimeError("another one"), 8, 224, recompute=False) is None


def test_events_that_cannot_be_written_do_not_stop_the_run(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("convmixer.training.logging.loggers.tensorboard.Logger.open", refuse)
    run = train()
    warning = "tensorboard: Permission denied: no more is logged to it; the run goes on\n"
    assert run.done.err.count("tensorboard") == run.done.err.count(warning) == 1
    assert len(run.metrics("train")) == 6


def test_an_image_damaged_in_evaluation_is_named(convmixer: Command, toy_run: Run, own_toy: Path) -> None:
    Image.new("RGB", (9, 9)).save(own_toy / "val/red/0.png")
    (own_toy / "val/red/1.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    done = convmixer("eval", f"--data_url={own_toy}", f"--pretrained={toy_run.best / 'best.safetensors'}")
    assert done.code == 1
    assert "val/red/1.jpg" in done.err
    assert "1 of 13 images" in done.err
    assert done.out.startswith("eval results: ")


def test_images_damaged_in_the_evaluation_of_a_run_are_named_once_and_counted(train: Train, own_toy: Path) -> None:
    for index in range(3):
        (own_toy / f"val/red/{index}.{('png', 'jpg')[index % 2]}").write_bytes(b"")
    run = train(folder=own_toy)
    for name in ("0.png", "1.jpg", "2.png"):
        assert run.done.err.count(f"not evaluated: {own_toy}/val/red/{name}: ") == 1
    assert run.done.err.count("3 of 13 images could not be read and are not in the results") == 1
    assert [entry["unreadable"] for entry in run.metrics("eval")] == [3, 3]


def test_of_many_damaged_images_the_first_are_named(train: Train, own_toy: Path) -> None:
    for path in sorted(own_toy.glob("val/*/*"))[:-1]:
        path.write_text("not an image")
    run = train(folder=own_toy)
    assert run.done.err.count(f"not evaluated: {own_toy}/val/") == 5
    assert run.done.err.count("not evaluated: 7 more") == 1
    assert run.done.err.count("12 of 13 images could not be read") == 1
    assert [entry["unreadable"] for entry in run.metrics("eval")] == [12, 12]


def test_without_a_readable_evaluation_image_nothing_is_best(
    convmixer: Command, own_toy: Path, toy: Path, toy_options: ToyOptions, here: Path
) -> None:
    whole = {path: path.read_bytes() for path in own_toy.glob("val/*/*")}
    for path in whole:
        path.write_bytes(b"")
    done = convmixer("train", *toy_options(own_toy))
    assert (done.code, done.out) == (1, "")
    assert "none of the 13 evaluation images can be read, the first " in done.error
    assert f"{own_toy}/val/blue/0.png" in done.error
    assert "best so far" not in done.err
    assert not list(here.glob("runs/best/*/*"))
    (run,) = (here / "runs/checkpoints").iterdir()
    assert newest(run).name == "step_00000003"  # the epoch is not lost
    for path, content in whole.items():
        path.write_bytes(content)
    done = convmixer("train", *toy_options(own_toy), "--resume=auto")
    assert done.code == 0, done.err
    (log,) = here.glob("runs/summary/*/metrics.jsonl")
    assert [step for step, _ in evaluations(log.read_text())] == [3, 6]

    for path in whole:
        path.write_bytes(b"")
    done = convmixer("eval", f"--data_url={own_toy}", "--pretrained=runs/best")
    assert (done.code, done.out) == (1, "")
    assert "none of the 13 evaluation images can be read" in done.error
