"""`check-data`: exit codes, the three reports, and where they may not be written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import Command
from tests.project import project_environment

CLEAN = ("--image_size=8", "-j0")  # the toy images have 12 x 10 pixels


def test_a_clean_data_set(convmixer: Command, toy: Path) -> None:
    done = convmixer("check-data", toy, *CLEAN)
    assert done.code == 0
    assert done.out.splitlines()[0].startswith(f"{toy}: 37 images, ")
    assert done.out.splitlines()[1:4] == [
        "  train   24 images in 3 classes",
        "  val     13 images in 3 classes",
        "  formats PNG 19, JPEG 18",
    ]
    assert done.out.endswith("\nnothing wrong was found\n")
    assert "37 images, " in done.err


def test_all_three_reports_list_the_findings(convmixer: Command, here: Path, own_toy: Path) -> None:
    whole = (own_toy / "val/red/0.png").read_bytes()
    (own_toy / "val/red/cut.png").write_bytes(whole[:60])
    (own_toy / "train/blue/copy.png").write_bytes(whole)
    done = convmixer("check-data", own_toy, *CLEAN, "--json", "report.json", "--html=page.html")
    assert done.code == 1
    assert "\nleaking: 1; " in done.out
    assert "\n  train/blue/copy.png = val/red/0.png: same bytes, in 2 classes\n" in done.out
    assert done.out.endswith("\nfound: truncated 1, leaking 1\n")
    record = json.loads((here / "report.json").read_text())
    assert record["clean"] is False
    assert record["splits"]["train"] == {
        "folder": str(own_toy / "train"),
        "images": 25,
        "classes": {"blue": 9, "green": 8, "red": 8},
    }
    assert record["findings"]["leaking"] == [
        {"paths": ["train/blue/copy.png", "val/red/0.png"], "detail": "same bytes, in 2 classes"}
    ]
    assert [case["paths"] for case in record["findings"]["truncated"]] == [["val/red/cut.png"]]
    page = (here / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "val/red/cut.png" in page


def test_other_splits_and_none_at_all(convmixer: Command, own_toy: Path) -> None:
    (own_toy / "train").rename(own_toy / "t")
    (own_toy / "val").rename(own_toy / "v")
    assert convmixer("check-data", own_toy, *CLEAN, "--train_dir=t", "--val_dir=v").code == 0
    done = convmixer("check-data", own_toy, *CLEAN, "--train_dir=t", "--val_dir=none")
    assert done.code == 0
    assert "  val" not in done.out
    # Evaluated on what it was trained on: every image leaks.
    done = convmixer("check-data", own_toy, *CLEAN, "--train_dir=t", "--val_dir=t")
    assert done.code == 1
    assert "\nleaking: 24; " in done.out


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("place", ["{data}/r", "{data}/train/red/r", "{link}/r", "{data}/../toy/r"])
def test_nothing_may_be_written_below_the_data(
    convmixer: Command, here: Path, own_toy: Path, option: str, place: str
) -> None:
    (here / "link").symlink_to(own_toy)
    path = place.format(data=own_toy, link=here / "link")
    done = convmixer("check-data", own_toy, *CLEAN, option, path)
    assert done.code == 2
    assert f"{option}: {path} lies in the data folder" in done.error
    assert not Path(path).exists()
    assert done.out == ""


def test_a_split_outside_the_folder_is_data_too(convmixer: Command, here: Path, own_toy: Path) -> None:
    (own_toy / "val").rename(here / "elsewhere")
    done = convmixer("check-data", own_toy, *CLEAN, f"--val_dir={here / 'elsewhere'}", "--json=elsewhere/r.json")
    assert done.code == 2
    assert "lies in the data folder" in done.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "DATA: the folder of the data set is needed"),
        (["nowhere"], "DATA: there is no folder "),
        (["."], "DATA: "),
        (["{toy}", "--val_dir=test"], "--val_dir none checks the training images alone"),
        (["{toy}", "--json=no/such/r.json"], "cannot be written"),
        (["{toy}", "--image-size=0"], "--image_size: "),
        (["{toy}", "--jsno=x"], "did you mean --json?"),
    ],
)
def test_wrong_use(convmixer: Command, toy: Path, words: list[str], message: str) -> None:
    done = convmixer("check-data", *[word.format(toy=toy) for word in words])
    assert done.code == 2
    assert message in done.error


def test_cifar10_is_no_image_folder(convmixer: Command, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    done = convmixer("check-data", tmp_path)
    assert done.code == 2
    assert "CIFAR-10" in done.error


def test_a_killed_process_is_an_error_that_names_what_was_read(here: Path, own_toy: Path) -> None:
    command = [sys.executable, "-m", "convmixer.cli.main", "check-data", str(own_toy), "-j1"]
    environment = project_environment()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        # It still imports when it is seen, and so has all files before it.
        os.kill(_worker_of(run.pid), signal.SIGKILL)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert out == ""
    assert "convmixer: a process that reads images was killed" in err
    assert "Traceback" not in err
    assert str(own_toy / "train/blue/0.png") in err


def _worker_of(pid: int) -> int:
    """The child that runs tasks: spawned with `spawn_main`, and no resource tracker."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"spawn_main" in words:
                return int(child)
        time.sleep(0.01)
    raise AssertionError("no worker was started")
