"""`eval`: one line on stdout, equal to what training said; which preprocessing, classes and exit code hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.conftest import Command, Done, Run


def results(done: Done) -> dict[str, float]:
    (line,) = done.out.splitlines()
    assert re.fullmatch(
        r"eval results: \{'Loss': \d+\.\d{1,4}, 'Top1-Acc': [01]\.\d{1,6}, 'Top5-Acc': [01]\.\d{1,6}\}", line
    )
    return ast.literal_eval(line.removeprefix("eval results: "))


def logged(entry: dict[str, float]) -> dict[str, float]:
    return {name: entry[name] for name in ("Loss", "Top1-Acc", "Top5-Acc")}


@pytest.mark.parametrize("step", [3, 6])
def test_a_checkpoint_scores_as_it_did_in_training(convmixer: Command, toy: Path, toy_run: Run, step: int) -> None:
    checkpoint = toy_run.checkpoints / f"step_{step:08d}"
    done = convmixer("eval", "--data_url", toy, "--arch=convmixer_8_2", "--pretrained", checkpoint)
    assert done.code == 0
    (entry,) = [entry for entry in toy_run.metrics("eval") if entry["step"] == step]
    assert results(done) == logged(entry)
    assert "13 images, " in done.err


@pytest.mark.parametrize(
    "words", [["--batch_size=1"], ["--batch_size=5", "-j2"], ["--batch_size=100", "--amp_level=O2"]]
)
def test_best_scores_the_same_in_batches_of_any_size(
    convmixer: Command, toy: Path, toy_run: Run, words: list[str]
) -> None:
    done = convmixer("eval", f"--data_url={toy}", f"--pretrained={toy_run.best / 'best.safetensors'}", *words)
    best = max(entry["Top1-Acc"] for entry in toy_run.metrics("eval"))
    assert results(done)["Top1-Acc"] == best
    # Three classes: the right one is always among five.
    assert results(done)["Top5-Acc"] == 1.0


def test_the_command_line_wins_over_the_preprocessing_in_the_file(convmixer: Command, toy: Path, toy_run: Run) -> None:
    words = ["eval", f"--data_url={toy}", f"--pretrained={toy_run.best / 'best.safetensors'}"]
    own, other = results(convmixer(*words)), results(convmixer(*words, "--mean", "0", "0", "0"))
    assert own != other


def test_labels_are_the_weights_classes_by_name(convmixer: Command, own_toy: Path, toy_run: Run) -> None:
    # Without the first class the folder's own numbering would be one off.
    for image in (own_toy / "val/blue").iterdir():
        image.unlink()
    (own_toy / "val/blue").rmdir()
    words = ["eval", f"--pretrained={toy_run.best / 'best.safetensors'}", f"--data_url={own_toy}"]
    done = convmixer(*words)
    by_name = [results(convmixer(*words, "--val_dir", own_toy / f"only_{name}")) for name in only(own_toy)]
    assert results(done)["Top1-Acc"] == pytest.approx((4 * by_name[0]["Top1-Acc"] + 5 * by_name[1]["Top1-Acc"]) / 9)
    assert sum(score["Top1-Acc"] for score in by_name) > 0


def only(toy: Path) -> list[str]:
    """Splits of one class each, beside `val`."""
    for name in ("green", "red"):
        (toy / f"only_{name}").mkdir()
        (toy / f"only_{name}" / name).symlink_to(toy / "val" / name)
    return ["green", "red"]


def test_a_class_that_the_weights_do_not_know_is_refused_by_name(
    convmixer: Command, own_toy: Path, toy_run: Run
) -> None:
    (own_toy / "val/violet").mkdir()
    Image.new("RGB", (9, 9)).save(own_toy / "val/violet/1.png")
    done = convmixer("eval", f"--pretrained={toy_run.best / 'best.safetensors'}", f"--data_url={own_toy}")
    assert done.code == 1
    assert "'violet'" in done.error
    assert done.out == ""


def test_a_bad_image_is_named_counted_and_not_scored(convmixer: Command, own_toy: Path, toy_run: Run) -> None:
    words = ["eval", f"--pretrained={toy_run.best / 'best.safetensors'}", f"--data_url={own_toy}"]
    whole = results(convmixer(*words))
    (own_toy / "val/red/cut.png").write_bytes((own_toy / "val/red/0.png").read_bytes()[:60])
    done = convmixer(*words)
    assert done.code == 1
    assert results(done) == whole
    assert f"not evaluated: {own_toy / 'val/red/cut.png'}: " in done.err
    assert "1 of 14 images could not be read" in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without a GPU")
def test_a_gpu_in_the_recipe_only_is_not_required(convmixer: Command, here: Path, toy: Path, toy_run: Run) -> None:
    (here / "mine.yaml").write_text(f"device_target: GPU\ndata_url: {toy}\n")
    done = convmixer("eval", "--config", "mine.yaml", f"--pretrained={toy_run.best / 'best.safetensors'}")
    assert done.code == 0
    assert "no GPU found, running on the CPU" in done.err
    done = convmixer(
        "eval", "--config=mine.yaml", f"--pretrained={toy_run.best / 'best.safetensors'}", "--device_target=GPU"
    )
    assert done.code == 2
    assert done.error.startswith("--device_target: no GPU")
