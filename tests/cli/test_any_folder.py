"""A folder of classes alone trains; resume, evaluation and export then use the same split."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from tests.conftest import Command, Run, ToyOptions


@pytest.fixture
def classes(tmp_path: Path, toy: Path) -> Path:
    """All images of the toy by class, without splits."""
    folder = tmp_path / "images"
    for split in ("train", "val"):
        for image in (toy / split).glob("*/*"):
            (folder / image.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / image.parent.name / f"{split} {image.name}")
    return folder


def recorded(run: Path) -> dict[str, str]:
    with (run / "split.csv").open(newline="") as file:
        return {row["path"]: row["split"] for row in csv.DictReader(file)}


def test_it_trains_goes_on_and_is_evaluated(
    convmixer: Command, toy_options: ToyOptions, classes: Path, here: Path
) -> None:
    words = [word for word in toy_options(classes, epochs=1) if "dir" not in word]
    done = convmixer("train", *words)
    assert done.code == 0, done.err
    assert "has a folder per class: blue, green, red" in done.err
    assert "7 of 37 images are held out for evaluation (0.2 of each class, by seed 0)" in done.err
    run = Run.below(here, done)
    split = recorded(run.summary)
    assert split == recorded(run.best) == recorded(run.checkpoints)
    assert len(split) == 37
    held = {path for path, part in split.items() if part == "val"}
    with (run.summary / "predictions.csv").open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == held

    (classes / "blue/new.png").write_bytes((classes / "red" / "train 0.png").read_bytes() + b"\0")
    done = convmixer("eval", str(classes), f"--pretrained={run.best}", "-j0", "--json=m.json", "--csv=a.csv")
    assert "1 images are not in it and are left out" in done.err
    found = json.loads((here / "m.json").read_text())
    assert (found["images"], found["top1"]) == (7, pytest.approx(run.metrics("eval")[-1]["Top1-Acc"], abs=1e-6))
    assert "top5" not in found
    with (here / "a.csv").open(newline="") as file:
        assert {str(Path(row["path"]).relative_to(classes)) for row in csv.DictReader(file)} == held
    (classes / "blue/new.png").unlink()

    done = convmixer("train", *[word for word in words if "epochs" not in word], "--epochs=1", "--resume=auto")
    assert done.code == 0, done.err
    done = convmixer("export", str(classes), f"--pretrained={run.best}", "-j0", "--parity_images=40")
    assert done.code == 0, done.err
    assert re.search(r"^images +7 +7$", done.err, re.MULTILINE), done.err


def test_val_fraction_holds_out_where_there_is_a_val(convmixer: Command, toy_options: ToyOptions, toy: Path) -> None:
    done = convmixer("train", *toy_options(toy, epochs=1), "--val_fraction=0.5")
    assert "12 of 24 images are held out for evaluation" in done.err
    best = done.out.split()[1]
    done = convmixer("eval", str(toy), f"--pretrained={best}", "-j0", "--val_fraction=0.5")
    assert "12 images" in done.err


def test_the_folder_is_named_once(convmixer: Command) -> None:
    assert convmixer("train", "a", "--data_url=b").error == "'a' and --data_url are the same option; leave one out"
    assert convmixer("train", "nowhere").error.startswith("--data_url: there is no folder ")


def test_a_test_time_augmentation_is_another_result(convmixer: Command, toy: Path, toy_run: Run) -> None:
    words = ["eval", str(toy), f"--pretrained={toy_run.best}", "-j0"]
    plain, flipped = convmixer(*words), convmixer(*words, "--tta=flip")
    assert plain.out != flipped.out
    assert flipped.out.startswith("eval results: {'Loss': ")
    assert "precision  recall     F1  images" in plain.err
    assert convmixer(*words, "--json=/nowhere/x").error.startswith("--json: /nowhere/x cannot be written")


def test_check_data_and_pack_know_it(convmixer: Command, classes: Path, here: Path) -> None:
    done = convmixer("check-data", str(classes), "-j0")
    assert "37" in done.out
    done = convmixer("pack", str(classes), "packed", "-j0")
    assert done.code == 0, done.err
    assert "30 training and 7 evaluation images" in done.out
    # The same images as training holds out with this seed.
    assert "7 of 37 images are held out" in done.err


def test_a_device_is_written_to_and_not_replaced(convmixer: Command, toy: Path, toy_run: Run, here: Path) -> None:
    (here / "null").symlink_to("/dev/null")
    done = convmixer("eval", str(toy), f"--pretrained={toy_run.best}", "-j0", "--json=null")
    assert done.code == 0, done.err
    assert (here / "null").is_symlink()
