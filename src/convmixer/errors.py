"""The one error that a user sees: what is wrong, where, and what to do, in one or two plain lines."""

from __future__ import annotations

WRONG_USE = 2
RUN_FAILED = 1


class UserError(Exception):
    """A mistake that the user can mend.

    `message` is printed as it stands, without a traceback. `exit_code` is 2 for wrong use (options, paths, files that
    are not what they are said to be) and 1 for a run that failed on its data, its numbers or its disk.
    """

    def __init__(self, message: str, *, exit_code: int = WRONG_USE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
