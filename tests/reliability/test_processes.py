"""Several processes on this machine (Gloo): exact resume, one set of statistics, lost ranks, signals, two agents."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import Command, Done, Run, ToyOptions, Train, draw_images
from tests.project import ROOT
from tests.reliability.conftest import Start, assert_same_checkpoint, children, metrics, newest, running, wait_for

# 24 images: 12 steps per epoch of one image for each of two processes, 8 of three.
PAIR = {"batch_size": 1, "device_num": 2, "ckpt_save_every_step": 1, "ckpt_keep_num": 99}


def finished(process: subprocess.Popen[str], folder: Path) -> Run:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return Run.below(folder, Done(0, out, err))


def steps_saved(folder: Path) -> int:
    return len(list((folder / "runs/checkpoints").glob("*/step_*")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "word"),
    [
        (2, "--with_ema"),
        (3, "--with_ema"),
        (2, "--optimizer=muon"),
        (2, "--optimizer=schedule_free"),
        (2, "--unfreeze_epoch=1"),
        (2, "--drop_path=0.3"),
    ],
)
def test_resume_is_exact(count: int, word: str, start: Start, here: Path, toy: Path, toy_options: ToyOptions) -> None:
    options = [
        *toy_options(toy, **PAIR | {"device_num": count}),
        *(word, "--mixup=0.4", "--use_clip_grad_norm", "--accumulate=2"),
    ]
    run = finished(start("train", *options), here)
    last = newest(run.checkpoints)
    whole = here / "whole"
    shutil.copytree(run.checkpoints, whole)
    log = metrics(run.summary)
    for path in run.checkpoints.iterdir():
        if path.name > "step_00000005":
            shutil.rmtree(path)
    again = finished(start("train", *options, "--resume=auto"), here)
    assert "step 5," in again.done.err
    assert_same_checkpoint(whole / last.name, newest(again.checkpoints))
    assert metrics(again.summary) == log


@pytest.mark.slow
def test_a_cache_changes_nothing(start: Start, toy: Path, toy_options: ToyOptions, here: Path) -> None:
    runs: dict[str, Run] = {}
    for cache in ("none", "ram", "device"):
        options = toy_options(toy, **PAIR | {"cache": cache, "num_parallel_workers": 2})
        run = finished(start("train", *options), here)
        assert ("cache: " in run.done.err) == (cache != "none")
        (here / "runs").rename(here / cache)
        folder = here / cache
        runs[cache] = replace(run, summary=folder / "summary" / run.name, checkpoints=folder / "checkpoints" / run.name)
    for cache in ("ram", "device"):
        assert_same_checkpoint(newest(runs[cache].checkpoints), newest(runs["none"].checkpoints))
        assert metrics(runs[cache].summary) == metrics(runs["none"].summary)


@pytest.mark.slow
def test_synchronised_batchnorm_gives_one_process_losses(
    start: Start, here: Path, train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    # Mixing and pixel noise are drawn for each process; all else is the same for an image wherever it is.
    plain = {"mixup": 0, "re_prob": 0}
    one = train(batch_size=8, **plain)
    losses = [entry["loss"] for entry in one.metrics("train")]
    shutil.move(here / "runs", tmp_path / "one")
    two = finished(start("train", *toy_options(toy, batch_size=4, device_num=2, **plain), "--sync_bn"), here)
    assert [entry["loss"] for entry in two.metrics("train")] == pytest.approx(losses, rel=2e-4)
    shutil.move(here / "runs", tmp_path / "two")
    # Without it each process has statistics of its own four images.
    apart = finished(start("train", *toy_options(toy, batch_size=4, device_num=2, **plain)), here)
    assert [entry["loss"] for entry in apart.metrics("train")] != pytest.approx(losses, rel=2e-3)


@pytest.mark.slow
def test_evaluation_and_order_do_not_depend_on_processes(
    start: Start, here: Path, toy: Path, toy_options: ToyOptions, convmixer: Command
) -> None:
    # 13 images in the split: one process has 7, the other 6.
    run = finished(start("train", *toy_options(toy, batch_size=4, device_num=2, epochs=1)), here)
    (logged,) = run.metrics("eval")
    done = convmixer("eval", *toy_options(toy), f"--pretrained={newest(run.checkpoints)}")
    assert done.out == f"eval results: { ({key: logged[key] for key in ('Loss', 'Top1-Acc', 'Top5-Acc')}) }\n"


@pytest.mark.slow
def test_killed_process_ends_the_run_with_a_clear_error(
    start: Start, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    process = start("train", *toy_options(toy, **PAIR | {"epochs": 1000, "eval_every": 1000}))
    wait_for(lambda: steps_saved(here) >= 2)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    begin = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert time.monotonic() - begin < 60
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert "was killed by SIGKILL" in last or "is gone or silent" in last


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_restart_after_a_killed_process_is_exact(
    rank: int, start: Start, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    """Of the first process the run's lock is left, which the restarted one takes over."""
    whole = finished(start("train", *toy_options(toy, **PAIR)), here)
    kept = here / "whole"
    shutil.move(here / "runs", kept)
    process = start("train", *toy_options(toy, **PAIR), "--max_restarts=1")
    wait_for(lambda: steps_saved(here) >= 3)
    os.kill(ranks(process.pid)[rank], signal.SIGKILL)
    again = finished(process, here)
    assert "resumed " in again.done.err
    assert ("is gone; its run is taken over" in again.done.err) == (rank == 0)
    step = newest(again.checkpoints)
    assert_same_checkpoint(kept / "checkpoints" / whole.name / step.name, step)


def ranks(pid: int) -> list[int]:
    """The processes of the run below the launcher, in the order of their ranks."""
    wait_for(lambda: len(children(pid)) >= 2)
    found = []
    for child in children(pid):
        environment = dict(
            part.split("=", 1) for part in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in part
        )
        if "RANK" in environment:
            found.append((int(environment["RANK"]), child))
    return [child for _, child in sorted(found)]


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False])
def test_sigterm_saves_one_state_of_all(
    to_all: bool, start: Start, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    options = toy_options(toy, **PAIR | {"epochs": 1000, "eval_every": 1000, "ckpt_keep_num": 3})
    process = start("train", *options)
    wait_for(lambda: steps_saved(here) >= 2)
    os.kill(process.pid if to_all else ranks(process.pid)[1], signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    (run,) = (here / "runs/checkpoints").iterdir()
    resumed = start("train", *options, f"--resume={run}")
    assert resumed.stderr is not None
    for line in resumed.stderr:
        if line.startswith("resumed "):
            break
    else:
        raise AssertionError("it did not resume")
    assert str(newest(run).name) in line or "step_" in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_warnings_of_clusters_and_closed_connections(
    number: signal.Signals, start: Start, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    nohup = number != signal.SIGHUP
    process = start(
        "train",
        *toy_options(toy, **PAIR | {"epochs": 1000, "eval_every": 1000, "num_parallel_workers": 1}),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL),
    )
    wait_for(lambda: steps_saved(here) >= 2)
    if nohup:
        for each in (process.pid, *ranks(process.pid)):
            os.killpg(each, signal.SIGHUP)
        before = steps_saved(here)
        wait_for(lambda: steps_saved(here) >= before + 3)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1].startswith(f"stopped by {number.name}, saved at step ")


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["convmixer", "torchrun"])
def test_processes_end_with_their_agent(
    agent: str, start: Start, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    options = toy_options(toy, **PAIR | {"epochs": 1000, "eval_every": 1000, "num_parallel_workers": 1})
    if agent == "convmixer":
        process = start("train", *options)
    else:
        words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py"))
        process = start(*options, command=(sys.executable, *words))
    wait_for(lambda: steps_saved(here) >= 2)
    below = ranks(process.pid)
    loaders = [child for rank in below for child in children(rank)]
    assert len(loaders) >= 2
    process.kill()
    wait_for(lambda: not any(map(running, [*below, *loaders])), seconds=30)
    _, err = process.communicate(timeout=30)
    assert "what started the processes of the run is gone; they stop" in err
    assert err.splitlines()[-1].startswith("stopped by SIGTERM, saved at step ")
    (run,) = (here / "runs/checkpoints").iterdir()
    step = int(newest(run).name.removeprefix("step_"))
    assert f"saved at step {step}; " in err


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False])
def test_an_evaluation_of_several_is_left(
    to_all: bool, start: Start, here: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    # Enough images for both processes to be at work for seconds when the signal comes.
    folder = tmp_path / "large"
    draw_images(folder, {"train": (8, 8, 8), "val": (1500, 1500, 1501)})
    options = toy_options(folder, **PAIR | {"epochs": 1})
    whole = finished(start("train", *options), here)
    kept = tmp_path / "whole"
    shutil.move(here / "runs", kept)
    process = start("train", *options)
    wait_for(lambda: any('"step": 12,' in path.read_text() for path in here.glob("runs/summary/*/metrics.jsonl")))
    begin = time.monotonic()
    os.kill(process.pid if to_all else ranks(process.pid)[1], signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert time.monotonic() - begin < 10
    assert "eval results" not in err
    again = finished(start("train", *options, "--resume=auto"), here)
    assert_same_checkpoint(kept / "checkpoints" / whole.name / "step_00000012", newest(again.checkpoints))
    assert again.metrics("eval") == Run(whole.done, whole.name, kept / "summary" / whole.name, kept, kept).metrics(
        "eval"
    )


@pytest.mark.slow
def test_who_fails_says_why_and_the_others_are_silent(
    start: Start, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    options = toy_options(toy, **PAIR | {"epochs": 1000, "eval_every": 1000, "num_parallel_workers": 1})
    process = start("train", *options)
    wait_for(lambda: steps_saved(here) >= 2)
    os.kill(children(ranks(process.pid)[1])[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("convmixer: "))
    assert "a loader process was killed; being read: " in line


@pytest.mark.slow
def test_two_agents_on_loopback(here: Path, toy: Path, toy_options: ToyOptions) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", str(ROOT / "train.py")),
        *toy_options(toy, batch_size=4, epochs=1),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    agents = [
        subprocess.Popen(words, cwd=here, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [agent.communicate(timeout=240) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], ends
    run = Run.below(here, Done(0, ends[0][0] + ends[1][0], ends[0][1] + ends[1][1]))
    assert len(run.metrics("train")) == 3
    assert len(run.metrics("eval")) == 1
