"""Errors that no command looked at before, turned into what the user can do about them."""

from __future__ import annotations

import errno

from convmixer.errors import RUN_FAILED, WRONG_USE, UserError
from convmixer.packages import missing_package

# What no path that can be used ends with.
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)


def user_error_for(command: str, error: BaseException) -> UserError | None:
    """The UserError that an error of a command stands for, itself where it is one; None for a bug of ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ImportError):
        return missing_package(command, error)
    if isinstance(error, MemoryError):
        reason = str(error).rstrip(".") or "out of memory"
        return UserError(f"{reason}; a smaller batch_size takes less", exit_code=RUN_FAILED)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError) and error.filename and error.strerror:
        code = WRONG_USE if error.errno in _PATH_ERRORS else RUN_FAILED
        return UserError(f"{error.filename}: {error.strerror}", exit_code=code)
    return None
