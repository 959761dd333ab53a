"""Work on many images done by several processes, whose results come in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

IMAGES_PER_TASK = 16  # enough that handing a task over costs nothing beside the decoding
_AHEAD = 4  # results per process that wait for an early slow one


class WorkerKilled(Exception):
    """A process was killed, as the system does when memory runs out, at one of the tasks from `first` to `last`."""

    def __init__(self, first: Any, last: Any) -> None:
        super().__init__()
        self.first, self.last = first, last


def results_in_order(
    work: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Generator[tuple[Task, Result], None, None]:
    """Each task with what `work` makes of it. `processes` 0: in this one.

    `work` is pickled once for each process, and not with each task. Closing the generator ends them. Raises
    WorkerKilled.
    """
    if processes == 0:
        for task in tasks:
            yield task, work(task)
        return
    # Not forked: the progress bar has a thread, and a copy of it may hold a lock for ever.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(tasks) or 1), context, _begin, (work,))
    pending: deque[tuple[Task, Future[Result]]] = deque()

    def next_result() -> tuple[Task, Result]:
        task, future = pending[0]
        result = future.result()
        pending.popleft()
        return task, result

    try:
        for task in tasks:
            pending.append((task, pool.submit(_do, task)))
            if len(pending) > _AHEAD * processes:
                yield next_result()
        while pending:
            yield next_result()
    except BrokenProcessPool:
        raise WorkerKilled(pending[0][0], pending[-1][0]) from None
    finally:
        pool.shutdown(cancel_futures=True)


# Of a process of the pool: what it does with each task.
_work: Callable[[Any], Any] | None = None


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    # Ctrl-C reaches every process of the terminal; the one that the user started ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_the_parent, daemon=True).start()


def end_with_the_parent() -> None:
    """One that is killed tells nobody, and its workers would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _do(task: Any) -> Any:
    assert _work is not None
    return _work(task)
