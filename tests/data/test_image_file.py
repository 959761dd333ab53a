"""What a file system can do to one image: each is an unreadable image like any other, for every reader."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.project import run_python

from convmixer.data.folders import Files
from convmixer.data.image_file import read_image_file
from convmixer.data.inspection.probe import probe
from convmixer.data.limits import BadImage
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader, read_batches

SMALL = Preprocessing(size=8)


def png(width: int = 9, height: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "not a regular file"


def device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "not a regular file"


def listener(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    return "not a regular file"


def folder(path: Path) -> str:
    path.mkdir()
    return "not a regular file"


def loop(path: Path) -> str:
    path.symlink_to(path)
    return os.strerror(errno.ELOOP)


def nowhere(path: Path) -> str:
    path.symlink_to(path.parent / "gone")
    return os.strerror(errno.ENOENT)


def below_a_file(path: Path) -> str:
    path.symlink_to(path.parent / "whole.png/x.png")
    return os.strerror(errno.ENOTDIR)


def failing_disk(path: Path) -> str:
    """Its first byte can never be read, which the kernel tells as a disk tells a bad sector."""
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        path.read_bytes()
    return os.strerror(errno.EIO)


def sparse_giant(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(6 << 30)
    return "larger than 400 MiB"


def sparse(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(400 << 20)
    return "nothing but zeros, no image"


FAULTS = (pipe, device, listener, folder, loop, nowhere, below_a_file, failing_disk, sparse_giant, sparse)


@pytest.mark.parametrize("make_unreadable", FAULTS)
def test_each_reader_goes_on(tmp_path: Path, make_unreadable: Callable[[Path], str]) -> None:
    whole, bad = tmp_path / "whole.png", tmp_path / "bad.png"
    whole.write_bytes(png())
    reason = make_unreadable(bad)
    files = Files([whole, bad], labels=[0, 1])
    (batch,) = read_batches(files, SMALL, 2)
    assert batch.bad == [(1, reason)]
    assert batch.indices.tolist() == [0]
    crop, label, actual, told = TrainReader(files, SMALL).read(0, 1)
    assert (label, actual, told) == (0, 0, (1, reason))
    assert (crop == (255, 0, 0)).all()
    assert probe(files, 1).error == reason


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("times", [1, 2])
def test_a_passing_fault_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, times: int
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    left = [times]
    stat = os.stat

    def failing(*arguments: object) -> os.stat_result:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return stat(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", failing)
    if times == 1:
        assert read_image_file(str(path)) == path.read_bytes()
    else:
        with pytest.raises(BadImage, match=os.strerror(number)):
            read_image_file(str(path))
    assert left == [0]


def test_other_faults_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    stat = os.stat

    def counted(path: str) -> os.stat_result:
        calls.append(path)
        return stat(path)

    monkeypatch.setattr(os, "stat", counted)
    with pytest.raises(BadImage, match="No such file"):
        read_image_file(str(tmp_path / "gone.png"))
    assert len(calls) == 1


def test_want_of_memory_for_one_image_ends_no_job(tmp_path: Path) -> None:
    """Under a real limit: 64 Mpixels do not fit into it, the image before and the one behind do."""
    (tmp_path / "0.png").write_bytes(png())
    Image.new("RGB", (8000, 8000)).save(tmp_path / "1.png", compress_level=1)
    (tmp_path / "2.png").write_bytes(png())
    program = """
import os, resource, sys
from pathlib import Path
from convmixer.data.folders import Files
from convmixer.data.inspection.probe import probe
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import TrainReader, read_batches
files = Files([f"{sys.argv[1]}/{n}.png" for n in range(3)], labels=[0, 1, 2])
small = Preprocessing(size=8)
now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (now + (160 << 20), now + (160 << 20)))
(batch,) = read_batches(files, small, 3, threads=0)
print(batch.indices.tolist(), batch.bad)
print(TrainReader(files, small).read(0, 1)[3])
print(probe(files, 1).error)
"""
    done = run_python("-c", program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[0, 2] [(1, 'too large for the memory')]",
        "(1, 'too large for the memory')",
        "too large for the memory",
    ]


def test_a_line_of_pixels_that_no_filter_could_be_held_for(tmp_path: Path) -> None:
    """89,478,485 x 1 pixels are within the limit; their resize to 8 pixels would take 2.9 GB of weights."""
    path = tmp_path / "line.png"
    Image.fromarray(np.zeros((1, 89_478_485), np.uint8)).save(path, compress_level=1)
    assert probe(Files([path]), 0).error == "89478485 x 1 pixels, a side of more than 1000000"
