"""Signals that end work whose results are written as they come."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convmixer.signals import SignalHandler


class Signalled(BaseException):
    """The work was ended by a signal; `exit_code` is 128 plus its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class RaisingSignals(SignalHandler):
    """Within the context SIGINT, SIGTERM and SIGHUP raise Signalled at the next line of Python."""

    among = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        super().__init__()
        self._held, self._sent = False, 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this context a signal waits for its end: what is begun is done whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._sent:
            raise Signalled(self._sent)

    def receive(self, number: int, frame: FrameType | None) -> None:
        self._sent = number
        if not self._held:
            raise Signalled(number)
