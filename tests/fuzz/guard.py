"""What no input may cause: another error than ours, an unfit message, a hang, great growth, or anything executed."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convmixer.data.limits import BadImage
from convmixer.errors import UserError

SECONDS = 10.0  # an input: a hundred times what the slowest takes on a busy machine
GROWTH = 512 * 2**20  # bytes of address space
_LINES, _LETTERS = 2, 5000

# Events of Python's audit hooks that reading a file or an option never causes.
_FORBIDDEN = re.compile(
    r"os\.(system|exec|posix_spawn|spawn|fork|forkpty|kill|mkdir|rmdir|remove|rename|chmod|chown|link|symlink|putenv)"
    r"|subprocess\.Popen|socket\.(connect|bind|__new__)|shutil\..*|ctypes\.dlopen|pickle\.find_class|code\.__new__"
)
# The names that CIFAR-10's reader asks for; it refuses all others before they are looked up.
_PICKLED_ARRAY = {"numpy._core.multiarray", "numpy", "_codecs"}


class Fault(Exception):
    """An input that caused what none may."""


class _Hang(BaseException):
    """No Exception, so that nobody who catches all of these swallows it."""


class Guard:
    """Runs calls one at a time and counts them; `accepted` are those that ended without an error."""

    def __init__(self) -> None:
        self.inputs = self.accepted = 0
        self._watching = False
        self._events: list[str] = []
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, _on_alarm)

    def check(self, call: Callable[[Any], object], given: Any) -> None:
        """Raise Fault, or whatever `call(given)` raises besides BadImage and UserError."""
        self.inputs += 1
        self._events.clear()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            self._watching = True
            call(given)
        except (BadImage, UserError) as error:
            _judge(str(error))
        except SystemExit as leave:
            if leave.code:  # --help leaves with 0
                raise Fault(f"left with {leave.code}") from leave
        except _Hang:
            raise Fault(f"took more than {SECONDS:g} s") from None
        except MemoryError as error:
            raise Fault(f"grew by more than {GROWTH >> 20} MiB") from error
        else:
            self.accepted += 1
        finally:
            self._watching = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._events:
            raise Fault(f"did {', '.join(self._events)}")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching or not _FORBIDDEN.fullmatch(event):
            return
        if event == "pickle.find_class" and arguments[0] in _PICKLED_ARRAY:
            return
        self._events.append(event)


def _judge(message: str) -> None:
    lines = message.split("\n")
    if not message or len(lines) > _LINES or len(message) > _LETTERS or not all(line.isprintable() for line in lines):
        raise Fault(f"unfit message of {len(message)} letters: {message[:300]!r}")


def _on_alarm(number: int, frame: Any) -> None:
    raise _Hang


def limit_growth() -> None:
    """Let the address space grow by GROWTH from where it is now; asking for more is a MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + GROWTH, resource.RLIM_INFINITY))


def peak() -> int:
    """Bytes of memory that this program has held at most so far.

    Not `ru_maxrss`: that begins with the memory of the process that started this one, and growth below it is not seen.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
