"""What the commands do with the files of a folder: which they read, how large, and what they say of the others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_onnx_commands import foreign_model
from tests.conftest import Command, ToyOptions

from convmixer.config.checks import CheckDataOptions
from convmixer.config.inference import InferOptions
from convmixer.config.onnx import EvalOnnxOptions, InferOnnxOptions
from convmixer.config.schema import Config
from convmixer.data.limits import MAX_PIXELS

PIXELS = 12 * 10  # of a toy image
FEWER = f"--max_pixels={PIXELS - 1}"  # its JPEG files are decoded at half their size, its PNG files are too large


@pytest.fixture
def pictures(own_toy: Path, here: Path) -> Path:
    """One of each format in a folder, two files that are no images, and one that macOS wrote."""
    folder = here / "pictures"
    folder.mkdir()
    with Image.open(own_toy / "val/red/0.png") as image:
        for name in ("a.jfif", "b.jpe"):
            image.save(folder / name, "JPEG")
        for name in ("c.webp", "d.bmp", "e.gif", "f.tif", "g.TIFF"):
            image.save(folder / name)
    for name in ("notes.txt", "more.txt", "._a.jfif"):
        (folder / name).write_text("no image")
    return folder


def test_every_command_has_the_one_limit_and_the_decoders_default() -> None:
    for model in (Config, InferOptions, EvalOnnxOptions, InferOnnxOptions, CheckDataOptions):
        assert model().max_pixels == MAX_PIXELS


def test_infer_reads_all_formats_and_counts_the_rest(
    convmixer: Command, here: Path, pictures: Path, weights: Path
) -> None:
    done = convmixer("infer", "pictures", "--checkpoint", weights)
    assert done.code == 0, done.err
    answers = json.loads((here / "predictions.json").read_text())
    assert [Path(path).name for path in answers] == ["a.jfif", "b.jpe", "c.webp", "d.bmp", "e.gif", "f.tif", "g.TIFF"]
    assert "3 other files beside the images are ignored: .txt 2, name begins with a dot 1\n" in done.err
    assert done.out.count("\n") == 7


def test_eval_and_infer_onnx_say_what_is_ignored(convmixer: Command, here: Path, own_toy: Path, weights: Path) -> None:
    (own_toy / "val/red/Thumbs.db").write_text("x")
    line = "1 other file beside the images is ignored: .db 1\n"
    foreign_model(here / "only.onnx")
    for words in (
        ("eval", f"--data_url={own_toy}", "--pretrained", weights),
        ("eval-onnx", own_toy / "val", "-m", "CPU"),
        ("infer-onnx", own_toy / "val/red", "-m", "CPU"),
    ):
        done = convmixer(*words)
        assert done.code == 0, done.err
        assert done.err.count(line) == 1


def test_no_file_that_can_be_read(convmixer: Command, here: Path, weights: Path) -> None:
    (here / "pictures").mkdir()
    (here / "pictures/a.heics").write_text("x")
    done = convmixer("infer", "pictures", "--checkpoint", weights)
    assert done.code == 2
    assert "pictures holds no images (.jpg, .jpeg, .jpe, .jfif, .png, " in done.error
    assert "ignored: .heics 1" in done.error


def test_the_limit_of_pixels_reaches_every_reader(convmixer: Command, here: Path, toy: Path, weights: Path) -> None:
    foreign_model(here / "only.onnx")
    too_large = f"12 x 10 pixels, more than the limit of {PIXELS - 1} (--max_pixels)"
    for words, expected, count in (
        (("eval", f"--data_url={toy}", "--pretrained", weights), "not evaluated: ", 7),
        (("infer", toy / "val", "--recursive", "--checkpoint", weights), "not classified: ", 7),
        (("eval-onnx", toy / "val", "-m", "CPU"), "not evaluated: ", 7),
        (("infer-onnx", toy / "val/red", "-m", "CPU"), "not classified: ", 3),
    ):
        done = convmixer(*words, FEWER)
        assert done.code == 1
        lines = [line for line in done.err.splitlines() if too_large in line]
        assert len(lines) == count
        assert all(expected in line and line.endswith(f".png: {too_large}") for line in lines)
        assert convmixer(*words, f"--max_pixels={PIXELS}").code == 0
    done = convmixer("check-data", toy, "--image_size=5", "-j0", FEWER)
    assert done.code == 1
    assert "\nunreadable: 19; " in done.out
    assert f": {too_large}\n" in done.out


def test_the_limit_of_pixels_reaches_training(
    convmixer: Command, here: Path, toy: Path, toy_options: ToyOptions
) -> None:
    words = ["train", *toy_options(toy, epochs=1, max_bad_share=1)]
    done = convmixer(*words, FEWER)
    assert ".png: 12 x 10 pixels, more than the limit of 119 (--max_pixels)" in done.err
    done = convmixer(*words, f"--max_pixels={PIXELS}")
    assert done.code == 0, done.err
    assert "--max_pixels" not in done.err


def test_a_run_beside_the_class_folders_is_no_class_of_the_next(
    convmixer: Command, own_toy: Path, toy_options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the data is the current one, so that ./runs lies in it."""
    monkeypatch.chdir(own_toy / "train")
    words = ["train", *toy_options(Path(), train_dir=".", val_dir=own_toy / "val", epochs=1), "--collect_input_data"]
    for _ in range(2):
        done = convmixer(*words)
        assert done.code == 0, done.err
        assert "24 training and 13 evaluation images of 3 classes" in done.err
    assert len(list((own_toy / "train/runs/summary").iterdir())) == 2
    done = convmixer("check-data", ".", "--train_dir=.", f"--val_dir={own_toy / 'val'}", "--image_size=8", "-j0")
    assert done.code == 0, done.out
    assert "folder of a run 6" in done.out


@pytest.fixture
def nested(own_toy: Path) -> Path:
    """Class folders beside the folder of the evaluation images."""
    for folder in list((own_toy / "train").iterdir()):
        shutil.move(folder, own_toy)
    return own_toy


def test_the_evaluation_folder_in_the_training_folder_is_refused(
    convmixer: Command, here: Path, nested: Path, toy_options: ToyOptions
) -> None:
    for words in (
        ("train", *toy_options(nested, train_dir=".")),
        ("check-data", nested, "--train_dir=."),
    ):
        done = convmixer(*words)
        assert done.code == 2
        assert f"--val_dir: {nested / 'val'} lies in the training folder {nested}" in done.error
    assert os.listdir(here) == []


def test_pipes_and_loops_in_a_folder_end_no_command(
    convmixer: Command, here: Path, own_toy: Path, weights: Path, toy_options: ToyOptions
) -> None:
    for split in ("train", "val"):
        os.mkfifo(own_toy / split / "red/pipe.png")
        (own_toy / split / "red/loop.png").symlink_to(own_toy / split / "red/loop.png")
    done = convmixer("infer", own_toy / "val/red", "--checkpoint", weights)
    assert done.code == 1
    assert "pipe.png: not a regular file\n" in done.err
    assert "loop.png: Too many levels of symbolic links\n" in done.err
    assert "2 of 7 images could not be read" in done.err
    done = convmixer("eval", f"--data_url={own_toy}", "--pretrained", weights)
    assert done.code == 1
    assert "13 images, " in done.err
    done = convmixer("train", *toy_options(own_toy, epochs=1, max_bad_share=0.1))
    assert "pipe.png: not a regular file" in done.err
    assert "Traceback" not in done.err
