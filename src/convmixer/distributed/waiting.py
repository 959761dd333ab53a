"""Waiting for work that the first of several processes does alone, for as long as that takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NoReturn

from convmixer.distributed.processes import Processes, shared_store
from convmixer.errors import RUN_FAILED, UserError

POLL_SECONDS = 0.2


def from_first_in_time(processes: Processes, word: str, work: Callable[[], Any], seconds: float) -> Any:
    """What `work` gives on the first process, a value that JSON has, on all of them.

    The others look for it in the store by which the processes found each other, and not in a collective, whose
    time-out is that of a silent process. `word` names the work; it is used once in a run. An error of the first process
    is raised there, and is a UserError on the others at once; so is (exit 1) a first process that is gone with its
    store, or that has not answered after so many seconds.
    """
    if processes.count == 1:
        return work()
    store, key = shared_store(), f"convmixer/{word}"
    if not processes.is_first:
        return _await(store, key, seconds)
    answer: dict[str, Any] = {"error": "the first process of the run failed", "exit_code": RUN_FAILED}
    try:
        value = work()
        answer = {"value": value}
    except UserError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
        raise
    finally:
        store.set(key, json.dumps(answer))
    return value


def _await(store: Any, key: str, seconds: float) -> Any:
    end = time.monotonic() + seconds
    try:
        while not store.check([key]):
            if time.monotonic() > end:
                _fail(f"the first process of the run has not answered in {seconds:g} s")
            time.sleep(POLL_SECONDS)
        answer = json.loads(store.get(key))
    except RuntimeError:
        _fail("the first process of the run is gone")
    if "error" in answer:
        raise UserError(answer["error"], exit_code=answer["exit_code"])
    return answer["value"]


def _fail(why: str) -> NoReturn:
    raise UserError(why, exit_code=RUN_FAILED) from None
