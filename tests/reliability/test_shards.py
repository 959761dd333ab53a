"""Training on tar shards: exact resume from a disk and from a server, and the same network as from a folder."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Run, ToyOptions, run_command
from tests.project import FLOWERS, SRC, project_environment
from tests.range_server import range_server
from tests.reliability.conftest import assert_same_checkpoint, newest, roots
from tests.reliability.test_exact_resume import EVERYTHING, SMALL, assert_same_run, resumed_at

from convmixer.data import retrying

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SEQUENTIAL = ["--shard_order=sequential", "--shuffle_buffer=7"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Path:
    """The toy folder in shards of three images or so."""
    from convmixer.data.splits import open_split
    from convmixer.packing.images import ImageSize
    from convmixer.packing.pack import pack

    folder = tmp_path_factory.mktemp("packed")
    train = open_split("imagenet", str(toy), "train", train=True)
    val = open_split("imagenet", str(toy), "val", train=False, classes=train.classes)
    pack({"train": train, "val": val}, folder / "out", ImageSize(), shard_bytes=9000, seed=0, workers=0)
    assert len(list((folder / "out/train").glob("*.tar"))) > 5
    return folder / "out"


@pytest.fixture(params=["by index", "sequential", "server"])
def source(request: pytest.FixtureRequest, packed: Path) -> Iterator[list[str]]:
    """Options of a run on those shards."""
    if request.param != "server":
        yield [f"--data_url={packed}", "--set=shards", *(SEQUENTIAL if request.param == "sequential" else [])]
        return
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    with range_server(packed) as (url, _):
        yield [f"--data_url={url}", "--set=shards", "--shuffle_buffer=7"]


def trained(folder: Path, options: list[str]) -> Run:
    done = run_command("train", *options, *roots(folder))
    assert done.code == 0, done.err
    return Run.below(folder, done)


@pytest.fixture
def options(toy_options: ToyOptions, source: list[str]) -> list[str]:
    return [*toy_options(Path("unused"), **SMALL)[1:], *EVERYTHING, *source]


def test_exact_resume_at_any_step(options: list[str], tmp_path: Path) -> None:
    """Each time with another number of loader processes: none, one, three."""
    run = trained(tmp_path / "whole", options)
    steps = sorted(int(path.name.removeprefix("step_")) for path in run.checkpoints.iterdir())
    assert steps == list(range(1, 13))
    for step, workers in ((1, 0), (4, 1), (6, 3), (8, 0), (11, 1)):
        words = [*options, f"--num_parallel_workers={workers}"]
        assert_same_run(run, resumed_at(run, step, tmp_path / str(step), words))


def test_shards_read_by_index_are_cached_and_change_nothing(
    toy_options: ToyOptions, packed: Path, tmp_path: Path
) -> None:
    options = [*toy_options(packed, **SMALL), *EVERYTHING, "--set=shards"]
    run = trained(tmp_path / "none", [*options, "--cache=none"])
    for cache, line in (("ram", "are kept in memory as they are read"), ("device", "are kept on cpu")):
        cached = trained(tmp_path / cache, [*options, f"--cache={cache}"])
        assert line in cached.done.err
        assert_same_run(run, cached)


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_what_is_read_in_order_is_not_cached(cache: str, toy_options: ToyOptions, packed: Path, here: Path) -> None:
    done = run_command("train", *toy_options(packed), "--set=shards", *SEQUENTIAL, f"--cache={cache}")
    assert done.code == 2
    assert f"--cache {cache}: images in a sequential order are read ahead, not kept" in done.error
    assert list(here.iterdir()) == []


def test_other_processes_are_refused_for_a_sequential_order(
    toy_options: ToyOptions, packed: Path, tmp_path: Path
) -> None:
    """The ranges of the shards would be cut elsewhere, so that images come twice or never."""
    options = [*toy_options(packed, **SMALL), "--set=shards", *SEQUENTIAL]
    run = trained(tmp_path / "whole", options)
    done = run_command(
        "train", *options, f"--resume={run.checkpoints / 'step_00000003'}", "--batch_size=1", "--accumulate=2"
    )
    assert done.code == 2
    assert "processes and batch_size: [1, 2] then, [1, 1] now" in done.error


def last_step(folder: Path) -> int:
    """Of the checkpoints of the only run below the folder; 0 without one."""
    return max((int(path.name[5:]) for path in folder.glob("runs/checkpoints/*/step_*[0-9]")), default=0)


def test_a_cache_keeps_images_of_a_shuffled_order_only(toy_options: ToyOptions, packed: Path, tmp_path: Path) -> None:
    """And does not change what is learnt."""
    options = [*toy_options(packed, **SMALL), *EVERYTHING]
    runs = [trained(tmp_path / cache, [*options, f"--cache={cache}"]) for cache in ("none", "ram")]
    assert_same_run(*runs)
    done = run_command("train", *options, *SEQUENTIAL, "--cache=ram")
    assert done.code == 2
    assert "--cache ram: images in a sequential order are read ahead, not kept" in done.error


@pytest.mark.slow
def test_killed_at_random_it_ends_as_if_it_had_not_been(options: list[str], tmp_path: Path) -> None:
    draw, words = random.Random(1), [*options, "--epochs=30", "--num_parallel_workers=1"]
    paths = [str(SRC), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = project_environment(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1")
    whole = trained(tmp_path / "whole", words)
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = 0
    while True:
        command = [sys.executable, "-m", "convmixer", "train", *words, "--resume=auto"]
        goal = last_step(folder) + draw.randrange(5, 50)
        with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE) as process:
            while process.poll() is None and kills < 3:
                if last_step(folder) >= goal:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            _, err = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
    assert kills == 3
    (checkpoints,) = (folder / "runs/checkpoints").iterdir()
    assert_same_checkpoint(newest(checkpoints), newest(whole.checkpoints))


def test_a_server_that_dies_ends_the_run_which_goes_on_exactly(
    toy_options: ToyOptions, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(retrying, "RETRY_DELAYS", (0.01,))
    monkeypatch.setattr("convmixer.data.shards.stream._THREADS", 1)
    monkeypatch.setattr("convmixer.data.shards.stream._AHEAD", 1)
    with range_server(packed) as (url, behaviour):
        words = [*toy_options(Path("unused"), **SMALL)[1:], *EVERYTHING, "--set=shards", f"--data_url={url}"]
        options = [*words, "--shuffle_buffer=3", "--num_parallel_workers=1"]
        whole = trained(tmp_path / "whole", options)
        behaviour.dead_after = len(behaviour.asked) + 15
        monkeypatch.chdir(tmp_path)
        done = run_command("train", *options)
        assert done.code == 1
        assert "503" in done.error
        assert "Traceback" not in done.err
        behaviour.dead_after = None
        done = run_command("train", *options, "--resume=auto")
        assert done.code == 0, done.err
        assert "resumed " in done.err
        (checkpoints,) = (tmp_path / "runs/checkpoints").iterdir()
        assert_same_checkpoint(newest(checkpoints), newest(whole.checkpoints))


@pytest.mark.slow
def test_two_processes(toy_options: ToyOptions, packed: Path, tmp_path: Path) -> None:
    """Each reads its own range of a sequential order."""
    words = [*toy_options(packed, batch_size=2, epochs=1), "--set=shards", *SEQUENTIAL, "--device_num=2"]
    command = [sys.executable, "-m", "convmixer", "train", *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=project_environment(OMP_NUM_THREADS="1"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "24 training and 13 evaluation images of 3 classes" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not FLOWERS.is_dir(), reason="the flower photos are not here")
@pytest.mark.parametrize("order", ["shuffled", "sequential"])
def test_flowers_from_shards_reach_what_they_reach_from_a_folder(order: str, tmp_path: Path) -> None:
    """Top1-Acc after three epochs within 0.06, three standard errors of a difference on 860 images."""
    flowers = FLOWERS.parent
    assert run_command("pack", flowers, tmp_path / "packed", "-j1", "--shard_mb=2").code == 0
    words = (
        "--arch convmixer_64_4 --kernel_size 5 --patch_size 8 --image_size 64 --epochs 3 --batch_size 64 -j 1".split()
    )
    scores = []
    for name, data in (
        ("folder", [flowers]),
        ("shards", [tmp_path / "packed", "--set=shards", f"--shard_order={order}", "--shuffle_buffer=512"]),
    ):
        run = trained(tmp_path / name, [*words, f"--data_url={data[0]}", *map(str, data[1:])])
        scores.append(run.metrics("eval")[-1]["Top1-Acc"])
    assert abs(scores[0] - scores[1]) < 0.06
