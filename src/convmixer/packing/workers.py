"""The images of a source, made ready for their shards by several processes, in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

import numpy as np

from convmixer.data.limits import BadImage
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.packing.images import ImageSize, packed_image

_CHUNK = 16  # images per task

# (extension, bytes), or why an image is left out.
Packed = tuple[str, bytes] | str


def packed_images(source: Source, indices: np.ndarray, size: ImageSize, workers: int) -> Iterator[Packed]:
    """What becomes of each of the images. `workers` 0: in this process.

    Raises UserError (exit 1) when a process is killed, as the system does when memory runs out.
    """
    chunks = [indices[first : first + _CHUNK] for first in range(0, len(indices), _CHUNK)]
    if workers == 0:
        for chunk in chunks:
            yield from _pack_all(source, chunk, size)
        return
    # Not forked: the progress bar has a thread, and a copy of it may hold a lock for ever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(chunks) or 1), context, _begin, (source, size))
    pending: deque[Future[list[Packed]]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(_pack_in_worker, chunk))
            if len(pending) > 4 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a process that packs images was killed, perhaps for want of memory (-j takes fewer); run the same again, "
            "which goes on",
            exit_code=RUN_FAILED,
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _pack_all(source: Source, indices: np.ndarray, size: ImageSize) -> list[Packed]:
    found: list[Packed] = []
    for index in indices.tolist():
        try:
            found.append(packed_image(source, index, size))
        except BadImage as error:
            found.append(str(error))
    return found


# Of this process, where it is one that packs.
_work: tuple[Source, ImageSize] | None = None


def _begin(source: Source, size: ImageSize) -> None:
    global _work
    _work = (source, size)
    # Ctrl-C reaches every process of the terminal; the one that the user started ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """One that is killed tells nobody, and its workers would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _pack_in_worker(indices: np.ndarray) -> list[Packed]:
    assert _work is not None
    return _pack_all(_work[0], indices, _work[1])
