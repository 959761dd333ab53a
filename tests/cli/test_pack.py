"""`convmixer pack`: what is in the shards, that it is always the same, and that nothing is lost by a kill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from tests.conftest import Command, draw_images, file_size_limit
from tests.project import project_environment

from convmixer.data.splits import open_split

SMALL = ("-j0", "--shard_mb=1")


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy folder whose images take three shards of 1 MiB, about 2.7 MB."""
    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder, scale=20)
    return folder


def test_the_images_of_the_folder_are_in_the_shards(convmixer: Command, here: Path, photos: Path) -> None:
    before = tree(photos)
    done = convmixer("pack", photos, "out", *SMALL)
    assert done.code == 0, done.err
    total = sum(path.stat().st_size for path in here.glob("out/*/*.tar"))
    shards = len(list(here.glob("out/*/*.tar")))
    assert done.out == (f"{here}/out: 24 training and 13 evaluation images in {shards} shards, {total / 1e6:,.1f} MB\n")
    assert tree(photos) == before
    for split in ("train", "val"):
        packed = open_split("shards", str(here / "out"), split, train=True)
        folder = open_split("imagenet", str(photos), split, train=True)
        assert packed.classes == folder.classes
        ours, theirs = ([(s.read(i), int(s.labels[i])) for i in range(len(s))] for s in (packed, folder))
        assert sorted(ours) == sorted(theirs)
        assert ours != theirs  # shuffled


def test_manifest_and_shards(convmixer: Command, here: Path, photos: Path) -> None:
    convmixer("pack", photos, "out", *SMALL)
    manifest = json.loads((here / "out/manifest.json").read_text())
    assert sorted(path.name for path in (here / "out").iterdir()) == ["manifest.json", "train", "val"]
    assert manifest["format"] == 1
    assert manifest["classes"] == ["blue", "green", "red"]
    assert manifest["options"]["short_side"] is None
    names = []
    for shard in manifest["splits"]["train"]["shards"]:
        path = here / "out/train" / shard["name"]
        names.append(path.name)
        assert shard["bytes"] == path.stat().st_size <= 1 << 20
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with tarfile.open(path) as tar:
            members = tar.getnames()
            assert all(member.mtime == member.uid == 0 for member in tar)
        assert len(members) == 2 * shard["images"]
        assert {name.rpartition(".")[2] for name in members} == {"jpg", "png", "cls"}
    assert len(names) >= 2
    assert sorted(names) == sorted(path.name for path in (here / "out/train").glob("*.tar"))
    assert names[:2] == ["train-000000.tar", "train-000001.tar"]
    first = here / "out/train/train-000000.tar"
    with tarfile.open(first) as tar:
        assert tar.getnames()[:2][0].startswith("000000000.")
        assert tar.getnames()[1] == "000000000.cls"


@pytest.mark.parametrize("words", [(), ("--short_side=100",)])
def test_any_number_of_processes_gives_the_same_bytes(
    convmixer: Command, here: Path, photos: Path, words: tuple[str, ...]
) -> None:
    for workers in (0, 2):
        assert convmixer("pack", photos, f"out{workers}", "--shard_mb=1", f"-j{workers}", *words).code == 0
    assert tree(here / "out0") == tree(here / "out2")
    assert convmixer("pack", photos, "other", *SMALL, "--seed=1", *words).code == 0
    assert tree(here / "other") != tree(here / "out0")


def test_reduced(convmixer: Command, here: Path, photos: Path) -> None:
    assert convmixer("pack", photos, "out", *SMALL, "--short_side=50", "--quality=80", "--val_dir=none").code == 0
    assert not (here / "out/val").exists()
    source = open_split("shards", str(here / "out"), "train", train=True)
    assert len(source) == 24
    assert {source.name(i)[-4:] for i in range(24)} == {".jpg"}


def test_of_the_built_in_digits(convmixer: Command, here: Path) -> None:
    assert convmixer("pack", "none", "out", "--set=digits", "-j0").code == 0
    source = open_split("shards", str(here / "out"), "val", train=False)
    assert source.classes.names == tuple("0123456789")


def test_shards_can_be_packed_again(convmixer: Command, here: Path, photos: Path) -> None:
    convmixer("pack", photos, "out", *SMALL)
    done = convmixer("pack", "out", "again", *SMALL, "--set=shards")
    assert done.code == 0, done.err
    one, two = (open_split("shards", str(here / name), "train", train=True) for name in ("out", "again"))
    assert one.classes == two.classes
    assert sorted(one.read(i) for i in range(24)) == sorted(two.read(i) for i in range(24))


def test_bad_images_are_named_and_left_out(convmixer: Command, here: Path, own_toy: Path) -> None:
    (own_toy / "train/red/1.jpg").write_bytes((own_toy / "train/red/1.jpg").read_bytes()[:300])
    (own_toy / "val/blue/0.png").write_bytes(b"text")
    for _ in range(2):  # a run that finds it done says the same
        done = convmixer("pack", own_toy, "out", "-j0")
        assert done.code == 1
        assert f"{own_toy}/train/red/1.jpg: " in done.err
        assert f"{own_toy}/val/blue/0.png: a text, no image; left out" in done.err
        assert "23 training and 12 evaluation images in 2 shards" in done.out
        assert "; 2 could not be read and were left out\n" in done.out
    assert len(open_split("shards", str(here / "out"), "train", train=True)) == 23


@pytest.mark.parametrize("kill_after", [0.0, 0.2, 0.5, 0.9])
def test_killed_at_any_moment_it_goes_on_to_the_same(
    convmixer: Command, here: Path, photos: Path, kill_after: float
) -> None:
    """`kill_after`: part of the shards that are there when it is killed."""
    assert convmixer("pack", photos, "whole", *SMALL, "--short_side=190").code == 0
    wanted = tree(here / "whole")
    shards = len([name for name in wanted if name.endswith(".tar")])
    command = [sys.executable, "-m", "convmixer", "pack", str(photos), "out", "--shard_mb=1", "--short_side=190", "-j1"]
    with subprocess.Popen(command, env=project_environment(), stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if len(list(here.glob("out/*/*.tar"))) > kill_after * shards or kill_after == 0:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    done = convmixer("pack", photos, "out", *SMALL, "--short_side=190")
    assert done.code == 0, done.err
    assert tree(here / "out") == wanted


def test_damaged_at_random_it_goes_on_to_the_same(convmixer: Command, here: Path, photos: Path) -> None:
    """Whatever a kill, a full disk or a hand has left: shards that are cut, changed, missing or not recorded."""
    assert convmixer("pack", photos, "whole", *SMALL).code == 0
    wanted = tree(here / "whole")
    draw = random.Random(0)
    for _ in range(12):
        shutil.rmtree("out", ignore_errors=True)
        shutil.copytree("whole", "out")
        record = here / "out/manifest.partial.json"
        (here / "out/manifest.json").rename(record)
        content = json.loads(record.read_text())
        if draw.random() < 0.5:
            del content["splits"]["val"]
            shutil.rmtree(here / "out/val")
        if draw.random() < 0.5:
            content["splits"]["train"]["shards"].pop()
        record.write_text(json.dumps(content))
        path = draw.choice(sorted(here.glob("out/*/*.tar")))
        kind = draw.choice(["cut", "change", "delete"])
        if kind == "delete":
            path.unlink()
        elif kind == "cut":
            os.truncate(path, draw.randrange(path.stat().st_size))
        else:
            damaged = bytearray(path.read_bytes())
            damaged[draw.randrange(len(damaged))] ^= 1
            path.write_bytes(damaged)
        (here / "out/train/.train-000007.tar.tmp").write_bytes(b"left over")
        (here / "out/train/index.npz").unlink(missing_ok=True)
        assert convmixer("pack", photos, "out", *SMALL).code == 0
        assert tree(here / "out") == wanted


def test_what_is_not_finished_is_not_trained_on(convmixer: Command, here: Path, photos: Path) -> None:
    convmixer("pack", photos, "out", *SMALL)
    (here / "out/manifest.json").rename(here / "out/manifest.partial.json")
    done = convmixer("train", "--set=shards", "--data_url=out")
    assert done.code == 1
    assert "was not packed to the end; run the same convmixer pack again" in done.error


def test_a_full_disk_is_one_line(convmixer: Command, here: Path, photos: Path) -> None:
    with file_size_limit(500_000):
        done = convmixer("pack", photos, "out", *SMALL)
    assert done.code == 1
    assert "cannot be written: File too large; run the same again, which goes on" in done.error
    assert "\n" not in done.error
    assert not list(here.glob("out/*/.*.tmp"))
    assert convmixer("pack", photos, "out", *SMALL).code == 0


def test_a_small_disk(convmixer: Command, photos: Path, small_disk: object) -> None:
    folder = small_disk("1500k")  # type: ignore[operator]
    done = convmixer("pack", photos, folder / "out", *SMALL)
    assert done.code == 1
    assert "No space left on device" in done.error
    assert "\n" not in done.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "OUT: the folder of the shards is needed"),
        (("{photos}",), "OUT: the folder of the shards is needed"),
        (("{photos}", "{photos}/out"), "may not lie within each other"),
        (("{photos}", "{photos}/train/red"), "may not lie within each other"),
        (("{photos}", "{photos}/.."), "may not lie within each other"),
        (("{photos}", "full"), "full is not empty (mine.txt); name a new folder"),
        (("{photos}", "out", "--train_dir=none", "--val_dir=none"), "there is nothing to pack"),
        (("nowhere", "out"), "there is no folder"),
        (("{photos}", "out", "more"), "unexpected argument 'more'"),
        (("{photos}", "out", "--output=x"), "OUT stands without a flag"),
        (("{photos}", "out", "--quality=0"), "--quality: "),
    ],
)
def test_wrong_use(convmixer: Command, here: Path, photos: Path, words: tuple[str, ...], message: str) -> None:
    (here / "full").mkdir()
    (here / "full/mine.txt").write_text("mine")
    before = tree(photos)
    done = convmixer("pack", *[word.format(photos=photos) for word in words])
    assert done.code == 2
    assert message in done.error
    assert tree(photos) == before
    assert not (here / "out").exists()


def test_other_options_need_another_folder(convmixer: Command, here: Path, photos: Path) -> None:
    convmixer("pack", photos, "out", *SMALL)
    before = tree(here / "out")
    done = convmixer("pack", photos, "out", *SMALL, "--short_side=30")
    assert done.code == 2
    assert "holds what was packed with other options" in done.error
    assert '"short_side": 30' in done.error
    assert tree(here / "out") == before


def test_two_at_once(convmixer: Command, here: Path, photos: Path) -> None:
    import fcntl

    (here / "out").mkdir()
    with (here / "out/.pack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = convmixer("pack", photos, "out", *SMALL)
    assert done.code == 1
    assert "another process packs into" in done.error


def test_a_killed_process_is_an_error(here: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "convmixer", "pack", str(photos), "out", "-j1", "--short_side=100"]
    with subprocess.Popen(command, env=project_environment(), stderr=subprocess.PIPE, text=True) as process:
        end, worker = time.monotonic() + 60, None
        while worker is None and time.monotonic() < end:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    worker = int(child)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a process that packs images was killed" in err
    assert "Traceback" not in err
