"""Uneven classes on the command line: what is said, what is refused, and that both ways train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.conftest import Command, Run, ToyOptions, Train, draw_images

UNEVEN = {"train": (22, 6, 2), "val": (4, 4, 5)}


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    draw_images(tmp_path / "uneven", UNEVEN)
    return tmp_path / "uneven"


@pytest.mark.parametrize(
    ("balance", "line"),
    [
        ("none", "2 (red) to 22 (blue); --balance weights or --balance sampler helps the rare ones"),
        # 30 / (3 * 2) and 30 / (3 * 22)
        ("weights", "2 (red) to 22 (blue); they count 5 and 0.455 times in the loss"),
        ("sampler", "2 (red) to 22 (blue); each class is drawn equally often, the images of the rare ones"),
    ],
)
def test_a_line_says_how_uneven_the_classes_are(balance: str, line: str, train: Train, uneven: Path) -> None:
    run = train(f"--balance={balance}", folder=uneven)
    assert f"training images per class: {line}" in run.done.err
    # As many steps as without: 30 // 8 = 3 per epoch.
    assert [entry["step"] for entry in run.metrics("train")] == [1, 2, 3, 4, 5, 6]


def test_even_classes_are_not_spoken_of(train: Train) -> None:
    assert "images per class" not in train(epochs=1).done.err


def test_the_three_ways_learn_other_weights(convmixer: Command, uneven: Path, toy_options: ToyOptions) -> None:
    found = []
    for kind in ("none", "weights", "sampler"):
        root = [f"--{name}_root_dir={kind}/runs/{place}" for name, place in ROOTS.items()]
        done = convmixer("train", *toy_options(uneven), f"--balance={kind}", *root)
        assert done.code == 0, done.err
        weights = load_file(Run.below(Path(kind).absolute(), done).best / "best.safetensors")
        found.append(np.concatenate([weights[name].ravel() for name in sorted(weights) if name.endswith("weight")]))
    assert not any(np.array_equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


ROOTS = {"summary": "summary", "ckpt": "checkpoints", "best_ckpt": "best"}


def test_a_sequential_order_is_refused_with_the_sampler(
    convmixer: Command, uneven: Path, toy_options: ToyOptions, tmp_path: Path
) -> None:
    assert convmixer("pack", uneven, tmp_path / "packed").code == 0
    options = toy_options(tmp_path / "packed")
    done = convmixer("train", *options, "--balance=sampler", "--shard_order=sequential")
    assert done.code == 2
    assert done.error == (
        "--balance sampler: draws any image next, and these shards are read from one end to the other; "
        "--shard_order shuffled or --balance weights goes with it"
    )
    assert not Path("runs").exists()
    assert convmixer("train", *options, "--balance=sampler", "--shard_order=shuffled", "--epochs=1").code == 0
    assert convmixer("train", *options, "--balance=weights", "--shard_order=sequential", "--epochs=1").code == 0


def test_another_balance_is_another_run(train: Train, convmixer: Command, uneven: Path) -> None:
    train("--balance=weights", folder=uneven)
    done = convmixer("train", "--resume=auto", "--balance=sampler", "--epochs=3")
    assert done.code == 2
    assert "balance: weights then, sampler now" in done.error


def test_an_image_that_cannot_be_read_counts_once_however_often_it_is_drawn(train: Train, uneven: Path) -> None:
    (uneven / "train/red/0.png").write_bytes(b"no image")
    # 30 / 3 draws of each class per epoch: this one of 2 images comes 5 times in each.
    run = train("--balance=sampler", "--max_bad_fraction=0.04", folder=uneven, batch_size=6)
    assert run.done.err.count("red/0.png") == 1
    assert run.done.err.count("skipped ") == 1


@pytest.mark.parametrize("words", [["--loss=mse"], ["--focal_gamma=-1"], ["--patience=-1"], ["--balance=both"]])
def test_wrong_values_are_refused(words: list[str], convmixer: Command, toy: Path, toy_options: ToyOptions) -> None:
    done = convmixer("train", *toy_options(toy), *words)
    assert done.code == 2
    assert done.error.startswith(words[0].partition("=")[0])


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_other_losses_train_and_evaluation_stays_cross_entropy(loss: str, train: Train) -> None:
    # Equal weights at first: cross-entropy of three classes is about log 3 = 1.0986, whatever is minimised.
    run = train(f"--loss={loss}", "--mixup=0.4", "--balance=weights", epochs=1, base_lr=1e-9, warmup_lr=0)
    (evaluated,) = run.metrics("eval")
    assert 0.9 < evaluated["Loss"] < 1.5
    # log 2 of each class; (1 - 1/3)^2 log 3.
    first = run.metrics("train")[0]["loss"]
    assert first == pytest.approx({"bce": 0.6931, "focal": 0.4883}[loss], abs=0.15)


@pytest.mark.slow
def test_several_processes_with_the_sampler_and_patience(
    here: Path, convmixer: Command, uneven: Path, toy_options: ToyOptions
) -> None:
    changes = {"epochs": 6, "batch_size": 4, "base_lr": 1e-12, "warmup_lr": 0}
    words = ["--balance=sampler", "--patience=2", "--device_num=2"]
    done = convmixer("train", *toy_options(uneven, **changes), *words)
    assert done.code == 0, done.err
    run = Run.below(here, done)
    assert [entry["step"] for entry in run.metrics("eval")] == [3, 6, 9]
    assert [entry["step"] for entry in run.metrics("end")] == [9]
