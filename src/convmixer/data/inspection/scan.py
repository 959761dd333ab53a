"""Every image is probed, in order, by as many processes as wanted."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from convmixer.data.inspection.probe import FileReport, probe
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import printable

_CHUNK = 16  # images per task: enough that handing it over costs nothing beside the decoding

Chunk = tuple[int, range]  # of the images of which source

# What a process probes; it gets them when it starts, and not with each task.
_sources: Sequence[Source] = ()


def scan(
    sources: Sequence[Source], workers: int, on_done: Callable[[int], None], max_pixels: int = MAX_PIXELS
) -> list[list[FileReport]]:
    """What `probe` finds in each source. `workers` 0: in this process; `on_done` gets the number of images done.

    Raises UserError (exit 1) when a worker is killed, as the system does when memory runs out.
    """
    file_reports: list[list[FileReport]] = [[] for _ in sources]
    chunks = [
        (which, range(first, min(first + _CHUNK, len(source))))
        for which, source in enumerate(sources)
        for first in range(0, len(source), _CHUNK)
    ]
    if workers == 0:
        _begin(sources)
        for chunk in chunks:
            file_reports[chunk[0]] += _probe_all(chunk, max_pixels)
            on_done(len(chunk[1]))
        return file_reports
    # Not forked: the progress bar has a thread, and a copy of it may hold a lock for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks) or 1), context, _begin_process, (sources,)) as pool:
        pending: deque[tuple[Chunk, Future[list[FileReport]]]] = deque()

        def take() -> None:
            chunk, future = pending[0]
            file_reports[chunk[0]] += future.result()
            pending.popleft()
            on_done(len(chunk[1]))

        try:
            for chunk in chunks:
                pending.append((chunk, pool.submit(_probe_all, chunk, max_pixels)))
                # Only so many answers wait for an early slow one.
                if len(pending) > 8 * workers:
                    take()
            while pending:
                take()
        except BrokenProcessPool:
            (first_source, first), (last_source, last) = pending[0][0], pending[-1][0]
            between = (sources[first_source].name(first[0]), sources[last_source].name(last[-1]))
            raise UserError(
                "a process that reads images was killed, perhaps for want of memory (-j takes fewer); it was reading "
                f"a file between {printable(between[0])} and {printable(between[1])}",
                exit_code=RUN_FAILED,
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return file_reports


def _probe_all(chunk: Chunk, max_pixels: int) -> list[FileReport]:
    which, indices = chunk
    return [probe(_sources[which], index, max_pixels) for index in indices]


def _begin(sources: Sequence[Source]) -> None:
    global _sources
    _sources = sources


def _begin_process(sources: Sequence[Source]) -> None:
    # Ctrl-C reaches every process of the terminal; the one that the user started ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _begin(sources)
