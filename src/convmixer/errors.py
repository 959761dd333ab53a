"""The one error that a user sees: what is wrong, where, and what to do, in one or two plain lines."""

from __future__ import annotations

from convmixer.printable import printable

WRONG_USE = 2
RUN_FAILED = 1
_HEAD, _TAIL = 1600, 300  # letters kept of a line that quotes something endless


class UserError(Exception):
    """A mistake that the user can mend.

    `message` is printed without a traceback: one line or two, whatever the names and values that it quotes hold.
    `exit_code` is 2 for wrong use (options, paths, files that are not what they are said to be) and 1 for a run that
    failed on its data, its numbers or its disk.
    """

    def __init__(self, message: str, *, exit_code: int = WRONG_USE) -> None:
        super().__init__("\n".join(_shortened(printable(line)) for line in message.split("\n", 1)))
        self.exit_code = exit_code


def first_line(error: BaseException, max_length: int = 300) -> str:
    """The first line of an error's text, or its type where it has none; at most so many letters."""
    lines = str(error).strip().splitlines()
    return lines[0][:max_length] if lines else type(error).__name__


def _shortened(line: str) -> str:
    return line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} ... {line[-_TAIL:]}"
