"""What is asked of other machines is asked again where the answer may come the next time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from convmixer.errors import RUN_FAILED, UserError, first_line

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds before each further attempt; with REQUEST_SECONDS for each they stay below the option loader_timeout.
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_PASSING = (408, 425, 429)  # of HTTP's refusals of 400 to 499 those that pass


class Refused(UserError):
    """A server's answer that it does not give what was asked for, for which it is no use to ask again."""


def patiently(location: str, ask: Callable[[], T], *, again: int | None = None, doing: str = "read") -> T:
    """What `ask` gives, after some attempts, with RETRY_DELAYS between them; `again`: the first so many of these.

    Raises FileNotFoundError, and UserError for other failures of all.
    """
    for delay in (*RETRY_DELAYS[:again], None):
        try:
            return ask()
        except UserError:
            raise
        except Exception as failure:  # each of fsspec's file systems has errors of its own
            error = _cause(failure)
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            status = getattr(error, "status", None)
            refused = isinstance(error, PermissionError | NotImplementedError | TypeError) or (
                isinstance(status, int) and 400 <= status < 500 and status not in _PASSING
            )
            if delay is None or refused:
                kind = Refused if refused else UserError
                raise kind(f"{location}: cannot be {doing}: {first_line(error)}", exit_code=RUN_FAILED) from error
            logger.debug(f"{location}: {first_line(error)}; trying again in {delay:g} s")
            time.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


def _cause(error: BaseException) -> BaseException:
    """The error itself; of a file that is said to be missing because a web server could not be asked, why not."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
    if cause is None or getattr(cause, "status", None) in (404, 410):
        return error
    is_of_the_network = isinstance(cause, OSError | TimeoutError) or type(cause).__module__.startswith("aiohttp")
    return cause if is_of_the_network else error
