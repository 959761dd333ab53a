"""What a training run leaves behind and says, as a user finds it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import Command, Run, ToyOptions, Train

from convmixer.config.commands import TRAIN as COMMAND
from convmixer.config.loading import parse


def test_a_run_has_a_folder_of_its_name_under_each_root(toy_run: Run) -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d_\d{6}_convmixer_8_2", toy_run.name)
    roots = sorted(path.name for path in toy_run.summary.parents[1].iterdir())
    assert roots == ["best", "checkpoints", "summary"]
    assert [path.name for path in toy_run.best.iterdir()] == ["best.safetensors"]
    names = sorted(path.name for path in toy_run.summary.iterdir() if not path.name.startswith("events."))
    assert names == ["classes.json", "config.yaml", "metrics.jsonl", "predictions.csv", "run.json"]
    assert len(list(toy_run.summary.glob("events.out.tfevents.*"))) == 1


def test_results_go_to_stdout_and_the_rest_to_stderr(toy_run: Run) -> None:
    best, last = toy_run.done.out.splitlines()
    top1 = max(entry["Top1-Acc"] for entry in toy_run.metrics("eval"))
    assert best == f"best: runs/best/{toy_run.name}/best.safetensors (Top1-Acc {top1})"
    assert last == f"last: runs/checkpoints/{toy_run.name}/step_00000006"
    assert f"run {toy_run.name}: runs/summary/{toy_run.name}" in toy_run.done.err
    assert "24 training and 13 evaluation images of 3 classes" in toy_run.done.err
    assert "global batch 8, 3 steps per epoch, peak learning rate 0.02" in toy_run.done.err
    assert len(re.findall(r"^epoch .*  loss .* img/s", toy_run.done.err, re.MULTILINE)) == 6
    assert len(re.findall(r"^epoch [12]/2: mean loss .* img/s$", toy_run.done.err, re.MULTILINE)) == 2
    assert len(re.findall(r"^epoch [12]: eval results: \{'Loss': ", toy_run.done.err, re.MULTILINE)) == 2


def test_metrics_have_a_line_a_step_and_an_evaluation_an_epoch(toy_run: Run) -> None:
    steps = toy_run.metrics("train")
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in toy_run.metrics("eval")] == [3, 6]
    # The cosine over two epochs of three steps, read before each step.
    expected = [0.02 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert [entry["lr"] for entry in steps] == pytest.approx(expected)
    assert {key for entry in steps for key in entry} == {
        "kind",
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "skipped",
        "images_per_second",
        "data_wait",
    }
    assert all(0 <= entry["data_wait"] <= 1 for entry in steps)
    assert all(
        entry.keys()
        == {"kind", "step", "epoch", "Loss", "Top1-Acc", "Top5-Acc", "unreadable"}
        | {"balanced_accuracy", "macro_f1", "calibration_error"}
        for entry in toy_run.metrics("eval")
    )


def test_tensorboard_reads_the_same_numbers(toy_run: Run) -> None:
    events = EventAccumulator(str(toy_run.summary))
    events.Reload()
    for kind, name in (("train", "loss"), ("train", "lr"), ("eval", "Top1-Acc")):
        read = [(event.step, event.value) for event in events.Scalars(f"{kind}/{name}")]
        written = [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in toy_run.metrics(kind)]
        assert read == written


def test_metrics_alone(train: Train) -> None:
    run = train("--log_to=none")
    assert [entry["step"] for entry in run.metrics("train")] == [1, 2, 3, 4, 5, 6]
    assert not list(run.summary.glob("events.*"))
    assert "log_to: []  # command line\n" in (run.summary / "config.yaml").read_text()


def test_options_are_written_with_their_origins_and_can_be_used_again(
    toy_run: Run, toy: Path, toy_options: ToyOptions
) -> None:
    path = toy_run.summary / "config.yaml"
    lines = dict(line.split(": ", 1) for line in path.read_text().splitlines())
    assert lines["arch"] == "convmixer_8_2  # command line"
    assert lines["with_ema"] == "true  # command line"
    assert lines["momentum"] == "0.9  # default"
    assert re.fullmatch(r"0\.\d+  # .*small_folder\.yaml", lines["weight_decay"])
    assert yaml.safe_load(path.read_text())["beta"] == [0.9, 0.999]
    again = parse(COMMAND, ["--config", str(path)]).options
    words = [*toy_options(toy), "--with_ema", "--ckpt_save_every_step=2", "--config", "small_folder"]
    assert again == parse(COMMAND, words).options


def test_the_run_tells_how_it_was_made(toy_run: Run, toy: Path, toy_options: ToyOptions) -> None:
    record = json.loads((toy_run.summary / "run.json").read_text())
    assert shlex.split(record["command"]) == [
        "convmixer",
        "train",
        *toy_options(toy),
        "--with_ema",
        "--ckpt_save_every_step=2",
    ]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["hardware"]["cores"] >= 1
    assert json.loads((toy_run.summary / "classes.json").read_text()) == ["blue", "green", "red"]


def test_checkpoints_are_folders_with_hashes_of_their_files(toy_run: Run) -> None:
    # Every second step as asked, and the end of each epoch of three.
    assert sorted(path.name for path in toy_run.checkpoints.iterdir()) == [f"step_{step:08d}" for step in (2, 3, 4, 6)]
    for folder in toy_run.checkpoints.iterdir():
        manifest = json.loads((folder / "manifest.json").read_text())
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        del hashes["manifest.json"]
        assert set(hashes) == {"model.safetensors", "ema.safetensors", "state.pt"}
        assert {name: record["sha256"] for name, record in manifest["files"].items()} == hashes
        assert manifest["step"] == int(folder.name.removeprefix("step_"))


def test_best_holds_the_averaged_weights_of_the_best_evaluation(toy_run: Run) -> None:
    evaluations = toy_run.metrics("eval")
    best = max(evaluations, key=lambda entry: (entry["Top1-Acc"], -entry["step"]))
    averaged = load_file(toy_run.checkpoints / f"step_{best['step']:08d}" / "ema.safetensors")
    kept = load_file(toy_run.best / "best.safetensors")
    assert averaged.keys() == kept.keys()
    assert all(torch.equal(averaged[name], kept[name]) for name in kept)
    with safe_open(toy_run.best / "best.safetensors", framework="pt") as file:
        record = json.loads(file.metadata()["convmixer"])
    assert record["extra"] == {"step": best["step"], "top1": best["Top1-Acc"]}
    assert record["classes"] == ["blue", "green", "red"]
    assert record["preprocessing"]["size"] == 8


def test_old_checkpoints_go(train: Train) -> None:
    run = train("--ckpt_save_every_step=1", "--ckpt_keep_num=2", "--model_postfix=second try")
    assert run.name.endswith("_convmixer_8_2_second-try")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step_00000005", "step_00000006"]


def test_roots_may_lie_anywhere(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    roots = {f"{kind}_root_dir": tmp_path / "results" / kind for kind in ("summary", "ckpt", "best_ckpt")}
    done = convmixer("train", *toy_options(toy, epochs=1, **roots))
    assert done.code == 0
    assert len({path.name for root in roots.values() for path in root.iterdir()}) == 1
    assert list(here.iterdir()) == []


def test_a_later_start_epoch_starts_schedule_and_count_there(train: Train) -> None:
    run = train(start_epoch=1)
    entries = run.metrics("train")
    assert [entry["step"] for entry in entries] == [4, 5, 6]
    assert entries[0]["lr"] == pytest.approx(0.02 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert [entry["step"] for entry in run.metrics("eval")] == [6]


def test_the_data_is_only_read(train: Train, own_toy: Path) -> None:
    def tree() -> dict[str, tuple[bytes, int]]:
        files = sorted(path for path in own_toy.rglob("*") if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    (own_toy / "train/red/cut.jpg").write_bytes((own_toy / "train/red/1.jpg").read_bytes()[:200])
    before = tree()
    run = train("--max_bad_share=0.1", folder=own_toy, epochs=1)
    assert f"skipped {own_toy / 'train/red/cut.jpg'}: " in run.done.err
    assert tree() == before
