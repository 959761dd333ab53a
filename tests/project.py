"""Where the project and the real images beside it lie, and the environment of a process that imports it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
SHARED = ROOT.parent / "shared"
IMAGES = SHARED / "data"  # real images; tests that want them skip where there are none


def project_environment(**more: str) -> dict[str, str]:
    """This process's variables with the project's sources first on Python's path, and `more`."""
    return {**os.environ, "PYTHONPATH": str(SRC), **more}
