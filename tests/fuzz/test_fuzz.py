"""The fuzzer finds what it is there to find; its one-minute form, which CI runs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.project import project_environment

from convmixer.errors import UserError

HERE = Path(__file__).parent
PROBE = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import guard, os, time
from convmixer.errors import UserError
guard.SECONDS = 0.5
watch = guard.Guard()
guard.limit_growth()

def spin(_):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass

def refuse(message):
    raise UserError(message)

def crash(_):
    raise KeyError("a crash")

cases = dict(
    good=(len, "abc"), refused=(refuse, "what is wrong, and where"), crash=(crash, 0), hang=(spin, 0),
    growth=(bytearray, 600 * 2**20), written=(os.mkdir, "made"), run=(os.system, "true"), silent=(refuse, ""),
    left=(sys.exit, 3),
)
call, given = cases[sys.argv[1]]
try:
    watch.check(call, given)
except Exception as error:
    print(type(error).__name__, error)
else:
    print("passed", watch.inputs, watch.accepted)
"""


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("good", "passed 1 1"),
        ("refused", "passed 1 0"),
        ("crash", "KeyError 'a crash'"),
        ("hang", "Fault took more than 0.5 s"),
        ("growth", "Fault grew by more than 512 MiB"),
        ("written", "Fault did os.mkdir"),
        ("run", "Fault did os.system"),
        ("silent", "Fault unfit message of 0 letters: ''"),
        ("left", "Fault left with 3"),
    ],
)
def test_the_guard_sees_every_kind_of_fault(tmp_path: Path, case: str, outcome: str) -> None:
    environment = project_environment(MALLOC_ARENA_MAX="1")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, case], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.stdout.strip() == outcome, done.stderr


def test_the_messages_of_errors_are_fit_for_a_terminal() -> None:
    assert str(UserError("a\x1b[31m\x00b\nc\nd\udcff")) == "a\\x1b[31m\\x00b\nc\\nd\\udcff"
    assert str(UserError("x" * 9000 + " gives the way out")).endswith("gives the way out")
    assert len(str(UserError("x" * 9000))) < 2000


@pytest.mark.slow
def test_one_minute_of_fuzzing() -> None:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), "--seconds=60"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    total = re.search(r"([\d,]+) inputs tried in 60 s \(seed 0\), 0 failures", done.stdout)
    assert total is not None
    assert int(total[1].replace(",", "")) > 1000
    assert time.monotonic() - start > 50
