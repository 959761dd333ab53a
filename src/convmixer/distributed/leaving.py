"""How a process of several ends: by itself, or because what started it is gone."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import NoReturn

from convmixer.errors import RUN_FAILED, UserError
from convmixer.signals import LAUNCHER, has_agent

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5


def end_with_the_agent(local_rank: int, seconds: float) -> None:
    """Stop the run, as SIGTERM does, when the agent that started this process is killed; `seconds` later in any case.

    Nobody would be left to end the processes, and they would train on beside the run that takes their place.
    """
    if not has_agent():
        return  # started by hand: the shell may go
    agent = int(os.environ.get(LAUNCHER, os.getppid()))

    def watch() -> None:
        while os.getppid() == agent:
            time.sleep(_WATCH_SECONDS)
        if local_rank == 0:
            logger.warning("what started the processes of the run is gone; they stop")
        else:
            time.sleep(2 * _WATCH_SECONDS)  # so that the first has said so before the run ends
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(RUN_FAILED)

    threading.Thread(target=watch, name="agent", daemon=True).start()


def leave(code: int) -> NoReturn:
    """End this process of several, whose work is done and saved or whose error is reported, with an exit code.

    Without NCCL's teardown, which after an error may wait for the other processes, and without Python's: threads of
    the process group may then still be giving their objects back, and the process dies of SIGABRT ("terminate called
    without an active exception", seen once in some thirty runs), for which the agent would take a finished run for a
    failed one.
    """
    for child in multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, UserError):  # its reader is gone, its disk full
            stream.flush()
    os._exit(code)
