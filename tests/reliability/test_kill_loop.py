"""The short form of scripts/kill_loop.py: a run that is killed at random moments ends as if it had not been."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.project import ROOT


@pytest.mark.slow
def test_three_kills() -> None:
    words = [sys.executable, str(ROOT / "scripts/kill_loop.py"), "--kills=3", "--epochs=4"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 of 3 kills survived: ")
