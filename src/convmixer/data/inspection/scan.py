"""Every image is probed, in order, by as many processes as wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from convmixer.data.inspection.probe import FileReport, probe
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.source import Source
from convmixer.data.worker_pool import IMAGES_PER_TASK, WorkerKilled, results_in_order
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import printable

Task = tuple[int, range]  # of the images of which source


def scan(
    sources: Sequence[Source], workers: int, on_done: Callable[[int], None], max_pixels: int = MAX_PIXELS
) -> list[list[FileReport]]:
    """What `probe` finds in each source. `workers` 0: in this process; `on_done` gets the number of images done.

    Raises UserError (exit 1) when a worker is killed, as the system does when memory runs out.
    """
    tasks = [
        (which, range(first, min(first + IMAGES_PER_TASK, len(source))))
        for which, source in enumerate(sources)
        for first in range(0, len(source), IMAGES_PER_TASK)
    ]
    file_reports: list[list[FileReport]] = [[] for _ in sources]
    try:
        with closing(results_in_order(partial(_probe_all, sources, max_pixels), tasks, workers)) as results:
            for (which, indices), found in results:
                file_reports[which] += found
                on_done(len(indices))
    except WorkerKilled as killed:
        (first_source, first), (last_source, last) = killed.first, killed.last
        between = (sources[first_source].name(first[0]), sources[last_source].name(last[-1]))
        raise UserError(
            "a process that reads images was killed, perhaps for want of memory (-j takes fewer); it was reading "
            f"a file between {printable(between[0])} and {printable(between[1])}",
            exit_code=RUN_FAILED,
        ) from None
    return file_reports


def _probe_all(sources: Sequence[Source], max_pixels: int, task: Task) -> list[FileReport]:
    which, indices = task
    return [probe(sources[which], index, max_pixels) for index in indices]
