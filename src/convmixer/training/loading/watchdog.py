"""A time limit on waiting for loader processes: those that give nothing in time are killed, which ends the wait."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Watchdog:
    """Within `waiting()`, kills `processes()` after `seconds`; `timed_out` says that it had to."""

    def __init__(self, seconds: float, processes: Callable[[], Sequence[int]]) -> None:
        self.seconds, self.processes, self.timed_out = seconds, processes, False
        self._since: float | None = None
        self._end = threading.Event()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def start(self) -> None:
        """Begin to watch, in a thread that ends with the program or with `stop`."""
        threading.Thread(target=self._watch, name="loader-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self.seconds / 4)):
            since = self._since
            if since is not None and time.monotonic() - since > self.seconds:
                self.timed_out = True
                for process in self.processes():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                return
