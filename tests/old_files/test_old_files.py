"""Files that the program wrote before its redesign (0.1.0, November 2026) are read, and a run of then goes on.

`run/step_00000006` is the second last checkpoint of a run of four epochs by `recipe.yaml` and the options below, whose
metrics.jsonl went on with the numbers below; `best.safetensors` and `model.onnx` are its weights and their export.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Command, Run

import convmixer as api

HERE = Path(__file__).parent
NAME = "26-11-27_073322_convmixer_8_1"
OPTIONS = (
    "--arch=convmixer_8_1 --patch_size=2 --kernel_size=3 --image_size=8 --batch_size=256 --train_num_samples=512 "
    "--val_num_samples=128 --mixup=0.5 --with_ema --use_clip_grad_norm --seed=3 --summary_loss_collect_freq=1 "
    "--num_parallel_workers=0 --auto_augment=rand-m5-n1 --num_classes=10 --epochs=4 "
    "--resampler=pillow"  # the only one then
).split()


def test_an_old_run_goes_on_to_the_same_numbers(convmixer: Command, here: Path) -> None:
    shutil.copytree(HERE / "run", here / "runs/checkpoints" / NAME)
    done = convmixer("train", f"--config={HERE / 'recipe.yaml'}", *OPTIONS, "--resume=auto")
    assert done.code == 0, done.err
    assert "step_00000006: step 6, weights, optimizer, averaged weights, best Top1-Acc none yet" in done.err
    run = Run.below(here, done)
    assert run.name == NAME
    steps = run.metrics("train")
    assert [entry["step"] for entry in steps] == [7, 8]
    for name, values in {
        "loss": (2.299583911895752, 2.311600685119629),
        "lr": (0.00025, 0.0),
        "grad_norm": (0.11838420480489731, 0.12054459750652313),
    }.items():
        assert [entry[name] for entry in steps] == pytest.approx(values, rel=1e-5, abs=1e-12)
    (evaluation,) = run.metrics("eval")
    assert {name: evaluation[name] for name in ("Loss", "Top1-Acc", "Top5-Acc")} == pytest.approx(
        {"Loss": 2.3116, "Top1-Acc": 0.0625, "Top5-Acc": 0.476562}
    )


def test_an_old_run_with_other_options_is_refused(convmixer: Command, here: Path) -> None:
    shutil.copytree(HERE / "run", here / "runs/checkpoints" / NAME)
    done = convmixer("train", f"--config={HERE / 'recipe.yaml'}", *OPTIONS, "--resume=auto", "--mixup=0.4")
    assert done.code == 2
    assert "mixup: 0.5 then, 0.4 now" in done.error


def test_old_weights_and_their_export_answer_alike() -> None:
    images = [np.full((8, 8), level, np.uint8) for level in (0, 90, 255)]
    weights = api.predict(HERE / "best.safetensors", images)
    exported = api.predict(HERE / "model.onnx", images)
    assert [answer.name for answer in weights] == [answer.name for answer in exported]
    for one, other in zip(weights, exported, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
    model = api.load_model(HERE / "best.safetensors")
    assert model.classes == tuple("0123456789")
    assert model.preprocessing.mean == (0.3,)
