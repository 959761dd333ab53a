"""`--freeze` as a command: what it leaves, what it keeps for the next time, and how it ends before its end."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Command, Run, ToyOptions, Train, draw_images, run_command

from convmixer.data.crops import eval_crop
from convmixer.data.folders import open_folder
from convmixer.data.reader import read_image
from convmixer.model import ConvMixer
from convmixer.training.frozen import feature_cache
from convmixer.training.frozen.features import Features
from convmixer.weights.load import build, complete
from convmixer.weights.read import read_weights

HEAD = {"head.weight", "head.bias"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/convmixer/features"


def head_of(run: Run) -> dict[str, torch.Tensor]:
    state = load_file(run.best / "best.safetensors")
    return {name: state[name] for name in HEAD}


def again(train: Train, *words: object, **options: object) -> Run:
    shutil.rmtree("runs")
    return train(*words, **options)


def test_it_ends_as_any_run(
    train: Train, convmixer: Command, weights: Path, toy: Path, toy_options: ToyOptions
) -> None:
    run = train("--pretrained", weights, "--freeze", epochs=30)
    before, best = load_file(weights), load_file(run.best / "best.safetensors")
    assert {name for name in before if not torch.equal(before[name], best[name])} == HEAD
    (line,) = run.metrics("eval")
    assert run.metrics("train") == []
    (checkpoint,) = run.checkpoints.iterdir()
    assert f"best: runs/best/{run.name}/best.safetensors (Top1-Acc {line['Top1-Acc']})" in run.done.out
    assert f"last: runs/checkpoints/{run.name}/{checkpoint.name}" in run.done.out
    # The command that evaluates computes features and logits anew.
    done = convmixer("eval", *toy_options(toy), "--pretrained", run.best / "best.safetensors")
    scores = ast.literal_eval(done.out.removeprefix("eval results: "))
    assert {name: line[name] for name in scores} == pytest.approx(scores, abs=1e-4)
    assert len((run.summary / "predictions.csv").read_text().splitlines()) == 1 + 13
    assert "freeze: true" in (run.summary / "config.yaml").read_text()
    assert "done" in convmixer("runs").out


def test_the_strength_is_chosen_on_training_images(train: Train, weights: Path) -> None:
    err = train("--pretrained", weights, "--freeze").done.err
    # 8 images per class: 2 of each.
    assert "accuracy on 6 held-out training images by the strength of the L2 penalty: 10: " in err
    assert "is the best of them; the head is fitted with it to all training images" in err


@pytest.mark.parametrize("words", [["--freeze"], ["--unfreeze_epoch=1"]])
def test_without_weights_it_says_that_nothing_was_learnt(words: list[str], train: Train, weights: Path) -> None:
    said = f"{words[0].split('=')[0]} without --pretrained: what stays as it is has learnt nothing"
    assert said in train(*words, epochs=1).done.err
    assert said not in again(train, *words, "--pretrained", weights, epochs=1).done.err


def test_features_are_those_of_the_network(train: Train, weights: Path, toy: Path, cache: Path) -> None:
    run = train("--pretrained", weights, "--freeze", "--hflip=0.5")
    kept = {len(tensors["values"]): tensors["values"] for tensors in map(load_file, cache.iterdir())}
    assert {count: values.shape[1] for count, values in kept.items()} == {24: 2, 13: 1}
    found = read_weights(run.best / "best.safetensors")
    model, inputs = build(found, complete(found)[0], ConvMixer), found.preprocessing
    assert inputs is not None
    source = open_folder(toy / "train", "--train_dir")
    crops = [np.asarray(eval_crop(read_image(source, index, inputs), inputs)) for index in range(24)]
    for view, images in enumerate((np.stack(crops), np.stack(crops)[:, :, ::-1])):
        with torch.no_grad():
            wanted = model.features(torch.from_numpy(inputs.normalise(images)))
        torch.testing.assert_close(kept[24][:, view], wanted, rtol=1e-4, atol=1e-5)


def test_the_second_time_takes_what_was_kept(train: Train, weights: Path, cache: Path) -> None:
    first = train("--pretrained", weights, "--freeze")
    assert "kept from an earlier run" not in first.done.err
    wanted = head_of(first)
    second = again(train, "--pretrained", weights, "--freeze")
    assert second.done.err.count("kept from an earlier run") == 2
    assert all(torch.equal(wanted[name], tensor) for name, tensor in head_of(second).items())


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: flip(path)])
def test_a_damaged_file_is_ignored(change: object, train: Train, weights: Path, cache: Path) -> None:
    wanted = head_of(train("--pretrained", weights, "--freeze"))
    for path in cache.iterdir():
        change(path)  # type: ignore[operator]
    second = again(train, "--pretrained", weights, "--freeze")
    assert "kept from an earlier run" not in second.done.err
    assert all(torch.equal(wanted[name], tensor) for name, tensor in head_of(second).items())
    third = again(train, "--pretrained", weights, "--freeze")  # written anew
    assert third.done.err.count("kept from an earlier run") == 2


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def test_other_images_weights_or_inputs_are_computed_anew(
    train: Train, weights: Path, own_toy: Path, tmp_path: Path
) -> None:
    train("--pretrained", weights, "--freeze", folder=own_toy)
    shutil.copy(own_toy / "train/red/0.png", own_toy / "train/blue/0.png")
    changed = again(train, "--pretrained", weights, "--freeze", folder=own_toy)
    assert changed.done.err.count("kept from an earlier run") == 1  # the evaluation images are the same
    for words in (["--std", "0.3", "0.3", "0.3"], ["--image_size=10"], ["--crop_pct=0.9"]):
        other = again(train, "--pretrained", weights, "--freeze", *words, folder=own_toy)
        assert "kept from an earlier run" not in other.done.err
    other_weights = again(train, "--pretrained", weights, folder=own_toy).best / "best.safetensors"
    shutil.copy(other_weights, tmp_path / "other.safetensors")
    other = again(train, "--pretrained", tmp_path / "other.safetensors", "--freeze", folder=own_toy)
    assert "kept from an earlier run" not in other.done.err


def test_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    one = Features(np.ones((100, 1, 64), np.float32), np.arange(100))
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 3 * 30_000)
    for number, key in enumerate("abc"):
        path = feature_cache.save_features(key, one)
        assert path is not None
        os.utime(path, (number, number))
    assert feature_cache.load_features("a") is not None  # which makes b the one that was used longest ago
    feature_cache.save_features("d", one)
    assert {path.stem for path in cache.glob("*")} == {"a", "c", "d"}
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 20_000)
    assert feature_cache.save_features("e", one) is None


def test_images_that_cannot_be_read(train: Train, convmixer: Command, weights: Path, own_toy: Path, here: Path) -> None:
    (own_toy / "train/red/0.png").write_bytes(b"broken")
    (own_toy / "val/red/0.png").write_bytes(b"broken")
    words = ["--pretrained", weights, "--freeze"]
    run = train(*words, "--max_bad_fraction=0.1", folder=own_toy)
    assert f"skipped {own_toy}/train/red/0.png" in run.done.err
    assert run.metrics("eval")[0]["unreadable"] == 1
    shutil.rmtree("runs")
    done = run_command("train", f"--data_url={own_toy}", *words)
    assert (done.code, (here / "runs").exists()) == (1, False)
    assert "1 training images cannot be read, the first" in done.error


def test_there_is_nothing_to_resume(train: Train, convmixer: Command, weights: Path) -> None:
    run = train("--pretrained", weights, "--freeze")
    for what in (run.name, run.checkpoints):
        done = convmixer("train", "--resume", what)
        assert (done.code, done.error.count("\n")) == (2, 0)
        assert "--freeze is done in seconds, there is nothing to go on with; start it anew" in done.error


def test_balance_counts_the_rare_class_higher(train: Train, weights: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "uneven", {"train": (16, 2, 6), "val": (4, 4, 5)})
    plain = head_of(train("--pretrained", weights, "--freeze", folder=tmp_path / "uneven"))
    shutil.rmtree("runs")
    balanced = train("--pretrained", weights, "--freeze", "--balance=weights", folder=tmp_path / "uneven")
    assert "training images per class: 2 (green) to 16 (blue); they count" in balanced.done.err
    assert not torch.equal(plain["head.bias"], head_of(balanced)["head.bias"])
