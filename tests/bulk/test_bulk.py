"""`bulk`: each image once, whatever is killed and however many processes share the work; and what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_onnx_commands import draw, foreign_model
from tests.conftest import Command
from tests.project import project_environment

COLOURS = [(200, 20, 20), (20, 200, 20), (20, 20, 200)]  # of the classes 0 to 2 of `foreign_model`
COUNT = 60


@pytest.fixture
def photos(here: Path) -> Path:
    """Images whose class follows from their number, one of them cut short, and a model that knows."""
    foreign_model(here / "colours.onnx")
    for number in range(COUNT):
        draw(here / f"photos/{number:03d}.png", COLOURS[number % 3])
    (here / "photos/007.png").write_bytes((here / "photos/008.png").read_bytes()[:40])
    return here / "photos"


def words(*more: object) -> list[str]:
    return ["bulk", "photos", "out", "--checkpoint", "colours.onnx", "--batch_size=4", "-j0", *map(str, more)]


def records(out: Path) -> list[dict[str, Any]]:
    parts = sorted(out.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def check_all(out: Path) -> None:
    """Each image stands there once, in order, with its answer."""
    found = records(out)
    assert [each["path"] for each in found] == [f"photos/{number:03d}.png" for number in range(COUNT)]
    assert [each.get("index") for each in found] == [None if n == 7 else n % 3 for n in range(COUNT)]
    assert "error" in found[7]


def test_parts_and_a_second_run(convmixer: Command, here: Path, photos: Path) -> None:
    done = convmixer(*words("--part_size=25"))
    assert (done.code, done.out) == (0, "out: 3 parts of 60 images\n"), done.err
    assert "59 images answered, 1 could not be read" in done.err
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "bulk.json",
        *(f"part-00000{part}.jsonl" for part in range(3)),
    ]
    check_all(here / "out")
    # Of what is missing, and nothing else.
    (here / "out/part-000001.jsonl").unlink()
    before = (here / "out/part-000000.jsonl").stat().st_mtime_ns
    done = convmixer(*words("--part_size=25"))
    assert "2 of 3 parts are there already" in done.err
    assert "25 images answered, 0 could not be read" in done.err
    assert (here / "out/part-000000.jsonl").stat().st_mtime_ns == before
    check_all(here / "out")


def start(*more: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "convmixer", *words(*more)],
        env=project_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_again_and_again(here: Path, photos: Path) -> None:
    """SIGKILL at moments that a fixed seed draws, until the work is done; what was whole stays as it was."""
    draw_moment = random.Random(0)
    whole: dict[str, bytes] = {}
    kills = 0
    for _ in range(40):
        process = start("--part_size=2", "--batch_size=1")
        deadline = time.monotonic() + 60
        target = len(whole) + draw_moment.randint(1, 6)
        while process.poll() is None and len(list((here / "out").glob("part-*"))) < target:
            assert time.monotonic() < deadline
            time.sleep(draw_moment.random() / 500)
        was_running = process.poll() is None
        process.kill()
        process.communicate()
        now = {path.name: path.read_bytes() for path in sorted((here / "out").glob("part-*"))}
        assert all(now[name] == content for name, content in whole.items())
        assert all(content.count(b"\n") == 2 for content in now.values())
        whole, kills = now, kills + was_running
        if process.returncode == 0:
            break
    assert kills >= 5
    assert len(whole) == 30
    check_all(here / "out")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped(here: Path, photos: Path, number: signal.Signals) -> None:
    process = start("--part_size=1", "--batch_size=1")
    while not list((here / "out").glob("part-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; " in err
    assert "parts are whole, and the same command goes on" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_processes_that_share_the_work(here: Path, photos: Path) -> None:
    """As torchrun starts them; the second began alone, and other numbers of them go on with what is there."""
    for rank, size in ((1, 2), (0, 3), (1, 3), (2, 3)):
        process = start("--part_size=7", RANK=str(rank), WORLD_SIZE=str(size))
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        if (rank, size) == (1, 2):
            assert 0 < len(records(here / "out")) < COUNT
    check_all(here / "out")


def test_parquet_embeddings_and_an_address_for_the_parts(convmixer: Command, here: Path, photos: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("fsspec")
    out = here / "out"
    command = [f"file://{out}" if word == "out" else word for word in words("--part_size=40", "--part_format=parquet")]
    out.mkdir()
    assert convmixer(*command).code == 0
    rows = [row for part in sorted(out.glob("*.parquet")) for row in parquet.read_table(part).to_pylist()]
    assert [row["index"] for row in rows] == [None if n == 7 else n % 3 for n in range(COUNT)]
    assert rows[7]["error"]
    (out / "part-000000.parquet").unlink()
    assert "1 of 2 parts are there already" in convmixer(*command).err


def another_image(here: Path) -> list[str]:
    draw(here / "photos/new.png", COLOURS[0])
    return ["--part_size=25"]


def another_model(here: Path) -> list[str]:
    foreign_model(here / "colours.onnx", classes=4)
    return ["--part_size=25"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda here: ["--part_size=9"], "part_size differ"),
        (lambda here: ["--part_size=25", "--topk=2"], "answers differ"),
        (lambda here: ["--part_size=25", "--mean", "0", "0", "0"], "input differ"),
        (another_image, "images_sha256, images differ"),
        (another_model, "model_sha256 differ"),
    ],
    ids=["parts", "answers", "preprocessing", "images", "model"],
)
def test_another_work_is_not_mixed_in(
    convmixer: Command, here: Path, photos: Path, change: Callable[[Path], list[str]], message: str
) -> None:
    assert convmixer(*words("--part_size=25")).code == 0
    before = {path.name: path.read_bytes() for path in (here / "out").iterdir()}
    done = convmixer(*words(*change(here)))
    assert done.code == 2
    assert done.error.startswith("OUT: out holds the parts of another work: ")
    assert message in done.error
    assert {path.name: path.read_bytes() for path in (here / "out").iterdir()} == before


def test_wrong_use(convmixer: Command, here: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = convmixer("bulk", "photos", "photos", "--checkpoint", "colours.onnx")
    assert (done.code, "OUT: photos holds other files" in done.error) == (2, True)
    done = convmixer("bulk", "photos")
    assert (done.code, "DATA OUT: images and a folder for the answers are needed" in done.error) == (2, True)
    done = convmixer("bulk", "photos", "out")
    assert (done.code, "--checkpoint: " in done.error) == (2, True)
    done = convmixer("bulk", "photos", "colours.onnx", "--checkpoint", "colours.onnx")
    assert (done.code, done.error) == (2, "OUT: colours.onnx is no folder; name a new one")
    (here / "out").mkdir()
    (here / "out/bulk.json").write_text("{")
    assert convmixer(*words()).error == "OUT: out/bulk.json is damaged; name a new folder"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    assert convmixer(*words()).error == "RANK: is 2, but WORLD_SIZE says 2 process(es)"


def test_a_disk_that_is_full(here: Path, photos: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    process = subprocess.run(
        [sys.executable, "-m", "convmixer", *words("--part_size=40")],
        env=project_environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == "convmixer: out/part-000000.jsonl: cannot be written: File too large"
    assert os.listdir(here / "out") == ["bulk.json"]
    assert (
        subprocess.run(
            [sys.executable, "-m", "convmixer", *words("--part_size=40")], env=project_environment(), check=False
        ).returncode
        == 0
    )
    check_all(here / "out")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(here: Path, photos: Path) -> None:
    """40,000 images of a list take no more than 30 MB more than 2,000: about 200 bytes of names per image."""
    peaks = []
    for count in (2_000, 40_000):
        (here / "photos.txt").write_text("photos/008.png\n" * count)
        code = (
            "import resource, sys; from convmixer.cli.main import main;"
            f"main(['bulk', 'photos.txt', 'out{count}', '--checkpoint', 'colours.onnx', '-q', '--part_size=500']);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=project_environment(), capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
        assert len(records(here / f"out{count}")) == count
    assert peaks[1] - peaks[0] < 30, peaks


@pytest.mark.slow
def test_on_a_local_cluster_of_ray(here: Path, photos: Path) -> None:
    """Real processes of Ray, which each do parts; a second run does what is missing."""
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "convmixer", *words("--part_size=9", "--ray=local", "--ray_actors=2")]
    # A part that was there is left alone.
    environment = project_environment(RAY_USAGE_STATS_ENABLED="0")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_all(here / "out")
    (here / "out/part-000002.jsonl").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 images answered, 0 could not be read" in done.stderr
    check_all(here / "out")
