"""What ends an inference leaves every answer until then in the file, a whole JSON document."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_onnx_commands import draw, foreign_model
from tests.project import project_environment

# Long names fill the pipe of stdout (64 KiB) with 300 lines, so that the program waits for its reader before the end.
NAME, COUNT = "x" * 200, 1000

CLASSES = ("--format=class",)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(here: Path) -> Start:
    """Start `infer-onnx pictures` on many images: `start(*words, **options of Popen)`."""
    foreign_model(here / "only.onnx")
    draw(here / "pictures" / f"{NAME}0000.png", (20, 20, 200))
    for number in range(1, COUNT):
        os.link(here / f"pictures/{NAME}0000.png", here / f"pictures/{NAME}{number:04d}.png")

    def run(*words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "convmixer",
                "infer-onnx",
                "pictures",
                "--batch_size=1",
                "-j0",
                *(words or CLASSES),
            ],
            env=project_environment(**(env or {})),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        )

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal(here: Path, start: Start, number: signal.Signals) -> None:
    with start() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(5)]
        process.send_signal(number)
        lines += process.stdout.readlines()
        err = process.stderr.read()
    answers = json.loads((here / "predictions.json").read_text())
    assert 5 <= len(answers) < COUNT
    assert list(answers) == sorted(answers)
    assert set(answers.values()) == {2}
    assert "Traceback" not in err
    if number is signal.SIGKILL:
        assert process.returncode == -number
        return
    assert process.returncode == 128 + number
    assert f"stopped by {number.name} after {len(answers)} of {COUNT} images" in err
    # The last line may have met the signal.
    assert len(answers) - len(lines) in (0, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_signal_leaves_whole_rows(here: Path, start: Start, suffix: str, number: signal.Signals) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = here / f"answers{suffix}"
    with start("-o", path.name) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(number)
        process.stdout.read()
        process.wait()
    if suffix == ".parquet" and number is signal.SIGKILL:
        assert not path.exists()  # a Parquet file is whole, or not there
        return
    paths = paths_in(path)
    assert 5 <= len(paths) < COUNT
    assert paths == [f"pictures/{NAME}{number:04d}.png" for number in range(len(paths))]


def paths_in(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        found: list[str] = pyarrow.parquet.read_table(path)["path"].to_pylist()
        return found
    text = path.read_text()
    assert text.endswith("\n")
    if path.suffix == ".csv":
        return [row["path"] for row in csv.DictReader(text.splitlines())]
    return [json.loads(line)["path"] for line in text.splitlines()]


def test_a_reader_that_leaves(here: Path, start: Start) -> None:
    for words, code in (((), 128 + signal.SIGPIPE), (("-o", "named.json"), 0)):
        process = start(*words)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert "BrokenPipe" not in err
    assert 1 <= len(json.loads((here / "predictions.json").read_text())) < COUNT
    # A file that was asked for by name is finished.
    assert len(json.loads((here / "named.json").read_text())) == COUNT


@pytest.mark.parametrize("form", ["class", "full"])
def test_a_full_disk(here: Path, start: Start, form: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    process = start(f"--format={form}", preexec_fn=limit, stdout=subprocess.DEVNULL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    answers = json.loads((here / "predictions.json").read_text())
    assert len(answers) > 5
    last = err.splitlines()[-1]
    kept = f"it holds the {len(answers)} answers until then"
    assert last == f"convmixer: predictions.json: cannot be written: File too large; {kept}"
    # The next answer would not have fitted.
    assert 5000 - 700 < (here / "predictions.json").stat().st_size <= 5000


def test_a_stdout_without_room(here: Path, start: Start) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as full:
        process = start(stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "convmixer: standard output: cannot be written: No space left on device"
    json.loads((here / "predictions.json").read_text())


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "\\u65e5\\udcff.png"),
        ("latin-1", "\\u65e5\\udcff.png"),
        ("utf-8", "\N{CJK UNIFIED IDEOGRAPH-65E5}\\udcff.png"),
    ],
)
def test_a_name_that_stdout_cannot_encode(here: Path, start: Start, encoding: str, expected: str) -> None:
    name = os.fsdecode("\N{CJK UNIFIED IDEOGRAPH-65E5}".encode() + b"\xff.png")
    draw(here / "odd" / name, (20, 200, 20))
    process = subprocess.run(
        [sys.executable, "-m", "convmixer", "infer-onnx", "odd", "--format=class", "-j0"],
        env=project_environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.decode(encoding) == f"odd/{expected} (class: 1)\n"
    assert json.loads((here / "predictions.json").read_text()) == {f"odd/{name}": 1}
