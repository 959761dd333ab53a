"""Progress of long work: a bar on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from convmixer.printable import printable
from convmixer.terminal.logs import shows_progress

logger = logging.getLogger(__name__)

PLAIN_LINE_SECONDS = 30.0


class Progress:
    """Counts `total` units of work, shows the rate and the time left. `enabled` False shows nothing.

    Off a terminal a line comes every half minute; with `plain_lines` False only those that `line` is given.
    """

    def __init__(
        self, total: int, label: str, unit: str = "img", *, enabled: bool = True, plain_lines: bool = True
    ) -> None:
        self.total, self.unit, self.done = total, unit, 0
        label = printable(label)
        self._label, self._enabled, self._plain_lines = label, enabled, enabled and plain_lines
        self._start = self._last = time.monotonic()
        on_terminal = enabled and shows_progress() and sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=label, unit=unit, leave=False, dynamic_ncols=True) if on_terminal else None

    def add(self, count: int) -> None:
        """`count` more units are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._plain_lines and time.monotonic() - self._last > PLAIN_LINE_SECONDS:
            self._last = time.monotonic()
            left = duration((self.total - self.done) / max(self.rate, 1e-9))
            logger.info(
                f"{self._label}: {self.done}/{self.total} {self.unit}, {self.rate:.1f} {self.unit}/s, {left} left"
            )

    def label(self, text: str) -> None:
        """Put another text before the bar."""
        if self._bar is not None:
            self._bar.set_description(printable(text), refresh=False)

    def line(self, text: str) -> None:
        """A line that takes the bar's place where there is no terminal."""
        if self._enabled and self._bar is None:
            logger.info(text)

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / max(time.monotonic() - self._start, 1e-9)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def duration(seconds: float) -> str:
    """`4:05` or `2:04:05`; `1 d 02:04:05` from a day on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02d}:{minute:02d}:{second:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"
