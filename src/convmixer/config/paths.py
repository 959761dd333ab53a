"""Paths as users write them."""

from __future__ import annotations

import os
import re

_VARIABLE = re.compile(r"\$(?:(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[^}]*)\})")


def expanded_path(path: str) -> str:
    """A path with `~`, `$NAME` and `${NAME}` as a shell has them. Raises ValueError for a variable that is not set.

    A file whose name has such a dollar in it is taken as it is written, where it is there.
    """
    missing = [name for name in map(_variable, _VARIABLE.finditer(path)) if name not in os.environ]
    if missing and os.path.lexists(path):
        return path
    if missing:
        raise ValueError(f"{path}: the environment has no variable {missing[0]}")
    filled = _VARIABLE.sub(lambda match: os.environ[_variable(match)], path)
    return os.path.expanduser(filled) if path.startswith("~") else filled


def _variable(match: re.Match[str]) -> str:
    return match["bare"] or match["braced"]
