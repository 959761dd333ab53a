"""File and class names may hold anything; this makes them fit for one line of a terminal, a log or a page."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, control characters and undecodable bytes written out as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
