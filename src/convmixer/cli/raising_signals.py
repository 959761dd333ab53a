"""Signals that end work whose results are written as they come."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from convmixer.signals import heeded


class Signalled(BaseException):
    """The work was ended by a signal; `exit_code` is 128 plus its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class RaisingSignals:
    """Within the context SIGINT, SIGTERM and SIGHUP raise Signalled at the next line of Python; one that is ignored
    stays so."""

    def __init__(self) -> None:
        self._held, self._sent = False, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> RaisingSignals:
        for number in heeded((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            self._before[number] = signal.signal(number, self._raise)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._sent = number
        if not self._held:
            raise Signalled(number)
