"""File and class names may hold anything; this makes them fit for one line of a terminal, a log or a page."""

from __future__ import annotations

from collections.abc import Sequence

_NAMES_SHOWN = 6


def printable(text: str) -> str:
    """The text on one line, control characters and undecodable bytes written out as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are."""
    shown = ", ".join(printable(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} ... ({len(names)})"
