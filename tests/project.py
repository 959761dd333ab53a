"""Where the project and the real images beside it lie, and Python in a process of its own that imports the project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
SRC_AND_TESTS = os.pathsep.join([str(SRC), str(ROOT)])  # PYTHONPATH of a process that imports tests too

SHARED = ROOT.parent / "shared"
IMAGES = SHARED / "data"  # real images; tests that want them skip where there are none
PHOTOS = IMAGES / "imagenet-samples"
FLOWERS = IMAGES / "flowers5/val"
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="the ImageNet sample photos are not here")


def project_environment(**more: str) -> dict[str, str]:
    """This process's variables with the project's sources first on Python's path, and `more`."""
    return {**os.environ, "PYTHONPATH": str(SRC), **more}


def run_python(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """How `python WORDS` ended in that environment, and what it wrote."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=project_environment(**more), capture_output=True, text=True, check=False)
