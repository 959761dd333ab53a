"""The short form of scripts/kill_loop.py: a run that is killed at random moments ends as if it had not been."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import draw_images
from tests.project import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("source", ["digits", "folder"])
def test_three_kills(source: str, tmp_path: Path) -> None:
    words = ["--kills=3", "--epochs=4"]
    if source == "folder":
        draw_images(tmp_path, {"train": (50, 50, 50), "val": (9, 9, 9)}, scale=2)  # 24 x 20 pixels
        words += ["--caches", "none", "ram", "device", "--", "--set=imagenet", f"--data_url={tmp_path}"]
        words += ["--image_size=16", "--num_classes=3", "--batch_size=4"]
    script = [sys.executable, str(ROOT / "scripts/kill_loop.py")]
    done = subprocess.run([*script, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 of 3 kills survived: ")
