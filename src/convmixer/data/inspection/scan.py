"""Every file is probed, in order, by as many processes as wanted."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from convmixer.data.inspection.probe import FileReport, probe
from convmixer.data.limits import MAX_PIXELS
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import printable

_CHUNK = 16  # files per task: enough that handing it over costs nothing beside the decoding


def scan(
    paths: Sequence[str], workers: int, on_done: Callable[[int], None], max_pixels: int = MAX_PIXELS
) -> list[FileReport]:
    """What `probe` finds at each path. `workers` 0: in this process; `on_done` gets the number of files that are done.

    Raises UserError (exit 1) when a worker is killed, as the system does when memory runs out.
    """
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    file_reports: list[FileReport] = []
    if workers == 0:
        for chunk in chunks:
            file_reports += _probe_all(chunk, max_pixels)
            on_done(len(chunk))
        return file_reports
    # Not forked: the progress bar has a thread, and a copy of it may hold a lock for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks) or 1), context, _ignore_interrupt) as pool:
        pending: deque[tuple[Sequence[str], Future[list[FileReport]]]] = deque()
        try:
            for chunk in chunks:
                pending.append((chunk, pool.submit(_probe_all, chunk, max_pixels)))
                # The files' paths are in this process already; only so many answers wait for an early slow one.
                if len(pending) > 8 * workers:
                    file_reports += _next(pending, on_done)
            while pending:
                file_reports += _next(pending, on_done)
        except BrokenProcessPool:
            first, last = pending[0][0][0], pending[-1][0][-1]
            raise UserError(
                "a process that reads images was killed, perhaps for want of memory (-j takes fewer); it was reading "
                f"a file between {printable(first)} and {printable(last)}",
                exit_code=RUN_FAILED,
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return file_reports


def _next(
    pending: deque[tuple[Sequence[str], Future[list[FileReport]]]], on_done: Callable[[int], None]
) -> list[FileReport]:
    chunk, future = pending[0]
    found = future.result()
    pending.popleft()
    on_done(len(chunk))
    return found


def _probe_all(paths: Sequence[str], max_pixels: int) -> list[FileReport]:
    return [probe(path, max_pixels) for path in paths]


def _ignore_interrupt() -> None:
    # Ctrl-C reaches every process of the terminal; the one that the user started ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
