"""A run stopped at any step and resumed is, on the CPU, the run that was not stopped: to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Command, Run, ToyOptions, Train, draw_images, run_command
from tests.reliability.conftest import assert_same_checkpoint, metrics, newest, roots

EVERYTHING = [
    "--with_ema",
    "--mixup=0.4",
    "--cutmix=0.4",
    "--use_clip_grad_norm",
    "--clip_grad_norm=0.5",
    "--accumulate=2",
    "--re_prob=0.5",
    "--re_mode=pixel",
    "--auto_augment=rand-m9-mstd0.5-inc1",
    "--label_smoothing=0.1",
]
SMALL = {"batch_size": 2, "ckpt_save_every_step": 1, "ckpt_keep_num": 99}


def resumed_at(run: Run, step: int, folder: Path, options: list[str]) -> Run:
    """The run's files as a stop after `step` leaves them, in `folder`, gone on with to the end."""
    for kind in ("summary", "checkpoints", "best"):
        shutil.copytree(getattr(run, kind), folder / "runs" / kind / run.name)
    for path in (folder / "runs/checkpoints" / run.name).iterdir():
        if path.name > f"step_{step:08d}":
            shutil.rmtree(path)
    done = run_command("train", *options, *roots(folder), "--resume=auto")
    assert done.code == 0, done.err
    assert f"step {step}," in done.err
    return Run.below(folder, done)


def assert_same_run(run: Run, other: Run) -> None:
    assert_same_checkpoint(newest(run.checkpoints), newest(other.checkpoints))
    assert metrics(run.summary) == metrics(other.summary)
    assert (run.best / "best.safetensors").read_bytes() == (other.best / "best.safetensors").read_bytes()


def test_every_step_of_two_epochs(train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path) -> None:
    run = train(*EVERYTHING, **SMALL)
    steps = sorted(int(path.name.removeprefix("step_")) for path in run.checkpoints.iterdir())
    assert steps == list(range(1, 13))
    options = [*toy_options(toy, **SMALL), *EVERYTHING]
    for step in steps:
        assert_same_run(run, resumed_at(run, step, tmp_path / str(step), options))


@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_loader_workers(
    workers: int, train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    run = train(*EVERYTHING, **SMALL)
    options = [*toy_options(toy, **SMALL | {"num_parallel_workers": workers}), *EVERYTHING]
    assert_same_run(run, resumed_at(run, 5, tmp_path / "resumed", options))


@pytest.mark.parametrize(("before", "after"), [("ram", "none"), ("none", "ram"), ("ram", "device")])
def test_another_cache(
    before: str, after: str, train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    run = train(*EVERYTHING, **SMALL | {"cache": before})
    options = [*toy_options(toy, **SMALL | {"cache": after, "num_parallel_workers": 2}), *EVERYTHING]
    assert_same_run(run, resumed_at(run, 5, tmp_path / "resumed", options))


@pytest.mark.parametrize("container", ["list", "table"])
def test_images_in_another_container(
    container: str, convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    data = write_list(toy, tmp_path / "list.csv") if container == "list" else write_tables(toy, tmp_path / "tables")
    options = [*toy_options(data, **SMALL | {"num_parallel_workers": 2}), *EVERYTHING]
    run = Run.below(here, convmixer("train", *options))
    assert_same_run(run, resumed_at(run, 5, tmp_path / "resumed", options))


def write_list(folder: Path, path: Path) -> Path:
    rows = [f"{image},{image.parent.name},{image.parts[-3]}" for image in sorted(folder.glob("*/*/*"))]
    path.write_text("\n".join(["path,label,split", *rows, ""]))
    return path


def write_tables(folder: Path, out: Path) -> Path:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    out.mkdir()
    for split in ("train", "val"):
        images = sorted((folder / split).glob("*/*"))
        label = datasets.ClassLabel(names=sorted({image.parent.name for image in images}))
        rows = {
            "image": [{"bytes": image.read_bytes(), "path": None} for image in images],
            "label": [label.str2int(image.parent.name) for image in images],
        }
        features = datasets.Features({"image": datasets.Image(), "label": label})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(out / f"{split}.parquet")
    return out


def test_fp16_with_a_dynamic_loss_scale(train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path) -> None:
    # The scale starts far too high: the first steps are skipped and halve it.
    scaled = ["--amp_level=O1", "--amp_dtype=fp16", "--is_dynamic_loss_scale", "--loss_scale=1e38"]
    run = train(*scaled, **SMALL)
    skipped = [entry["skipped"] for entry in run.metrics("train")]
    assert skipped[0]
    options = [*toy_options(toy, **SMALL), *scaled]
    assert_same_run(run, resumed_at(run, 3, tmp_path / "resumed", options))


@pytest.mark.slow
def test_torch_compile(train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path) -> None:
    run = train(*EVERYTHING, "--compile", **SMALL)
    options = [*toy_options(toy, **SMALL), *EVERYTHING, "--compile"]
    assert_same_run(run, resumed_at(run, 7, tmp_path / "resumed", options))


def test_an_evaluation_that_was_missed_is_made_up_for(
    train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    # Saved after the last step of an epoch, before its evaluation: what a signal in between leaves.
    import torch

    run = train("--with_ema", **SMALL | {"batch_size": 4})
    options = [*toy_options(toy, **SMALL | {"batch_size": 4}), "--with_ema"]
    before = tmp_path / "before"
    shutil.copytree(run.checkpoints.parent.parent, before / "runs")
    folder = before / "runs/checkpoints" / run.name / "step_00000006"
    state = torch.load(folder / "state.pt", weights_only=True)
    first = state["log_bytes"]
    lines = (run.summary / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    evaluation = next(line for line in lines if b'"eval"' in line)
    state |= {"evaluated_step": 0, "best_top1": None, "log_bytes": first - len(evaluation)}
    torch.save(state, folder / "state.pt")
    rewrite_manifest(folder)
    stopped = Run(
        run.done, run.name, *(before / "runs" / kind / run.name for kind in ("summary", "checkpoints", "best"))
    )
    assert_same_run(run, resumed_at(stopped, 6, tmp_path / "resumed", options))


def rewrite_manifest(folder: Path) -> None:
    import hashlib
    import json

    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, record in manifest["files"].items():
        content = (folder / name).read_bytes()
        record |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    del manifest["sha256"]
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("optimizer", ["lion", "lamb", "muon", "schedule_free"])
def test_other_optimizers(optimizer: str, train: Train, toy: Path, toy_options: ToyOptions, tmp_path: Path) -> None:
    words = [f"--optimizer={optimizer}", "--weight_decay=0.05", *EVERYTHING]
    if optimizer == "schedule_free":
        words.remove("--with_ema")
    run = train(*words, **SMALL)
    options = [*toy_options(toy, **SMALL), *words]
    assert_same_run(run, resumed_at(run, 5, tmp_path / "resumed", options))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"num_parallel_workers": 0, "cache": "none"}, {"num_parallel_workers": 2, "cache": "ram"}),
        ({"num_parallel_workers": 2, "cache": "none"}, {"num_parallel_workers": 0, "cache": "device"}),
    ],
)
def test_a_balanced_order_with_patience(
    before: dict[str, object], after: dict[str, object], train: Train, toy_options: ToyOptions, tmp_path: Path
) -> None:
    # No step changes an answer: after the first evaluation none is better, and the run ends after the third of six.
    uneven = tmp_path / "uneven"
    draw_images(uneven, {"train": (12, 5, 1), "val": (4, 4, 5)})
    words = [*EVERYTHING, "--balance=sampler", "--loss=focal", "--patience=2"]
    changes = SMALL | {"epochs": 6, "base_lr": 1e-12, "warmup_lr": 0}
    run = train(*words, folder=uneven, **changes | before)
    steps = sorted(int(path.name.removeprefix("step_")) for path in run.checkpoints.iterdir())
    assert steps == list(range(1, 13))  # 4 per epoch
    options = [*toy_options(uneven, **changes | after), *words]
    for step in (3, 4, 6, 8, 11):
        assert_same_run(run, resumed_at(run, step, tmp_path / str(step), options))
