"""What is told on stderr: the library logs to `getLogger("convmixer")`, the commands decide what of it is shown."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from tqdm import tqdm

from convmixer.printable import printable

ROOT = logging.getLogger("convmixer")


class LogOptions(Protocol):
    """What decides on it."""

    @property
    def quiet(self) -> bool: ...
    @property
    def verbose(self) -> bool: ...
    @property
    def log_json(self) -> bool: ...


class _Lines(logging.Handler):
    """One line of plain text per record, above a bar that may be showing, whatever names it quotes."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(printable(record.getMessage()), file=sys.stderr)


class _JsonLines(logging.Handler):
    """One JSON object per record: time (UTC), level, module and message."""

    def emit(self, record: logging.LogRecord) -> None:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "module": record.name,
            "message": record.getMessage(),
        }
        print(json.dumps(said), file=sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[None]:
    """Within the context what is logged is shown on stderr as text, until `configure` says otherwise.

    By our handler alone: a library that gives Python's root logger one of its own would have each line shown twice.
    """
    before, level, propagates = list(ROOT.handlers), ROOT.level, ROOT.propagate
    ROOT.handlers[:] = [_Lines()]
    ROOT.propagate = False
    ROOT.setLevel(logging.INFO)
    try:
        yield
    finally:
        ROOT.handlers[:] = before
        ROOT.setLevel(level)
        ROOT.propagate = propagates


def configure(options: LogOptions) -> None:
    """Show what the options of a command ask for."""
    ROOT.setLevel(logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO)
    if options.log_json:
        ROOT.handlers[:] = [_JsonLines()]


def tell_error(message: str) -> None:
    """What ends a command, in one or two lines behind `convmixer: `."""
    if any(isinstance(handler, _JsonLines) for handler in ROOT.handlers):
        ROOT.error(message)
    else:
        print(f"convmixer: {message}", file=sys.stderr)


def shows_progress() -> bool:
    """Whether a bar may be drawn: somebody is told what goes on, and told it as text."""
    return ROOT.isEnabledFor(logging.INFO) and any(isinstance(handler, _Lines) for handler in ROOT.handlers)
