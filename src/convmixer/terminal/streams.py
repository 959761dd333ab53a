"""The standard streams of a command: where nobody reads them any more, the work goes on or ends politely."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import printable

# A pipe whose reader has ended, a terminal that was closed, a descriptor that was closed.
_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)
# What tqdm writes by itself to move between the lines of several bars.
_CURSOR = re.compile(r"(\n|\x1b\[A)*")
_LINE = re.compile(r"[^\n]+")


@contextmanager
def standard_streams() -> Iterator[None]:
    """Within the context stderr takes everything and never fails; stdout fails as a command can end with.

    A write to stdout raises BrokenPipeError where nobody reads it any more, UserError (exit 1) where its disk is full.
    Characters that a stream cannot encode are written as escapes; control characters are on stderr, whoever wrote them.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        out, err = (stream or stack.enter_context(open(os.devnull, "w")) for stream in before)
        sys.stdout, sys.stderr = _Results(out), _Progress(err)  # type: ignore[assignment]
        try:
            yield
        finally:
            for stream in (out, err):
                # What is left would be written when Python ends, which fails with exit code 120 then.
                try:
                    stream.flush()
                except (OSError, ValueError):
                    _lead_nowhere(stream)
            sys.stdout, sys.stderr = before


class _Stream:
    """A text stream; what is not defined here is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        try:
            return self.stream.isatty()
        except (OSError, ValueError):
            return False


class _Progress(_Stream):
    """What a command reports while it works. Losing it is no reason to end a night's work."""

    def write(self, text: str) -> int:
        with self._forgiving():
            self.stream.write(_harmless(text))
        return len(text)

    def flush(self) -> None:
        with self._forgiving():
            self.stream.flush()

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            # A full disk may have room again later; a reader that has gone does not come back.
            if not isinstance(error, OSError) or error.errno in _NOBODY_READS:
                _lead_nowhere(self.stream)


class _Results(_Stream):
    """What a command answers."""

    def write(self, text: str) -> int:
        with self._reporting():
            return self.stream.write(text)

    def flush(self) -> None:
        with self._reporting():
            self.stream.flush()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _lead_nowhere(self.stream)
            if error.errno in _NOBODY_READS:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
            raise UserError(f"standard output: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None


def _harmless(text: str) -> str:
    """The text with its lines, and the carriage return that a bar begins with, but without other control characters."""
    if _CURSOR.fullmatch(text):
        return text
    start, rest = ("\r", text[1:]) if text.startswith("\r") else ("", text)
    return start + _LINE.sub(lambda line: printable(line[0]), rest)


def _lead_nowhere(stream: TextIO) -> None:
    """Let a stream's descriptor lead to nowhere: for what is still buffered, and for libraries that write to it."""
    with contextlib.suppress(OSError, ValueError):  # a stream that has none, or is closed
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _open_closed_descriptors() -> None:
    """Open descriptors 0, 1 and 2 where the parent closed them (`2>&-`).

    Else the next file that is opened, a checkpoint maybe, would get the number, and with it every message that a
    library writes to "stderr".
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
