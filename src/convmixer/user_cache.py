"""Where the program keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """`convmixer/NAME` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache); it need not be there yet."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "convmixer" / name
