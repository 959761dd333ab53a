"""One process writes a run: real processes that live, are killed, come at once, or cannot be looked up from here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.project import project_environment

from convmixer.errors import UserError
from convmixer.runs import lock as run_lock
from convmixer.runs.lock import NAME, Holder, RunLock

HOLD = """
import sys, time
from pathlib import Path
from convmixer.errors import UserError
from convmixer.runs.lock import RunLock
try:
    lock = RunLock(Path(sys.argv[1]))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
print("held", flush=True)
time.sleep(60)
"""

Hold = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Hold]:
    """A process that takes the lock of tmp_path and keeps it, or says why not."""
    started: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(tmp_path)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, env=project_environment(), stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write(folder: Path, *, age: float = 0.0, **changes: Any) -> Path:
    """A lock as this process would write it, but for the changes."""
    path = folder / NAME
    path.write_text(json.dumps({**vars(Holder.here()), **changes}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_it_is_refused_while_its_holder_lives_and_taken_over_at_once_when_it_was_killed(
    start: Hold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = start()
    assert first_line(holder) == "held"
    with pytest.raises(UserError) as caught:
        RunLock(tmp_path)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(
        f"{tmp_path}: process {holder.pid} on {socket.gethostname()} is at work on this run; "
    )
    assert str(tmp_path / NAME) in str(caught.value)
    holder.kill()  # not waited for: a zombie has ended too
    deadline = time.monotonic() + 10
    while Holder(**json.loads((tmp_path / NAME).read_text())).lives():
        assert time.monotonic() < deadline
    begin = time.monotonic()
    lock = RunLock(tmp_path)
    assert time.monotonic() - begin < 5
    assert f"process {holder.pid} on {socket.gethostname()} is gone" in capsys.readouterr().err
    lock.check()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_recycled_process_id_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    write(tmp_path, pid=os.getppid(), start="1")
    RunLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_does_not_shut_itself_out(tmp_path: Path) -> None:
    """As when an earlier run in the same process ended by an error of Python's."""
    first = RunLock(tmp_path)
    second = RunLock(tmp_path)
    with pytest.raises(UserError, match="has taken the run over"):
        first.check()
    first.release()
    second.check()
    second.release()
    assert list(tmp_path.iterdir()) == []


ELSEWHERE: dict[str, Any] = {"host": "node7", "machine": "another boot pid:[1]", "pid": 7}


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"pid": 3}', "[" * 100_000])
def test_of_another_machine_an_old_beat_tells_at_once(tmp_path: Path, content: str | None) -> None:
    path = write(tmp_path, age=run_lock.STALE + 1, **ELSEWHERE)
    if content is not None:
        path.write_text(content)
        os.utime(path, (1e9, 1e9))
    begin = time.monotonic()
    RunLock(tmp_path).release()
    assert time.monotonic() - begin < 5


def test_of_another_machine_a_beat_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_lock, "STALE", 1.5)
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.2)
    path = write(tmp_path, **ELSEWHERE)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.2):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(UserError, match="process 7 on node7 is at work on this run"):
        RunLock(tmp_path)
    done.set()
    thread.join()
    assert "to see whether process 7 on node7 is at work on this run" in capsys.readouterr().err
    # Its last beat lies in the future: a clock was set back since, which must not make the wait longer.
    os.utime(path, (time.time() + 3600,) * 2)
    begin = time.monotonic()
    RunLock(tmp_path).release()
    assert 1.0 < time.monotonic() - begin < 6


def test_it_beats_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.05)
    lock = RunLock(tmp_path)
    os.utime(lock.path, (1e9, 1e9))
    deadline = time.monotonic() + 10
    while lock.path.stat().st_mtime == 1e9:
        assert time.monotonic() < deadline
    lock.release()


def test_one_that_was_taken_over_is_left_alone(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    path = write(tmp_path, **ELSEWHERE)
    with pytest.raises(UserError, match="process 7 on node7 has taken the run over") as caught:
        lock.check()
    assert caught.value.exit_code == 1
    lock.release()
    assert path.exists()


def test_one_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = RunLock(folder)
    lock.path.unlink()
    folder.rmdir()
    lock.check()
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    lock.release()
    assert not lock.path.exists()


def test_of_several_that_take_over_at_once_one_has_it(start: Hold, tmp_path: Path) -> None:
    write(tmp_path, pid=os.getppid(), start="1")
    lines = [first_line(process) for process in [start() for _ in range(4)]]
    assert lines.count("held") == 1, lines
    assert all(line == "held" or "is at work on this run" in line for line in lines)
