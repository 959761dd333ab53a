"""Several processes of a training run on this machine, by torchrun's own agent, ending in one of our exit codes."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from convmixer.distributed import RUN_TIME
from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs import COMMAND, TIME_FORMAT, typed_command

PACKAGE_PARENT = Path(__file__).resolve().parents[1]


def launch(processes: int, command: Sequence[str], *, max_restarts: int = 0) -> int:
    """Run the command line `convmixer <command>` in so many processes and return the exit code of the first to fail.

    The processes print their own errors; one killed by a signal that nobody sent to the run raises UserError (exit 1).
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // processes)))
    # A restart must not find the addresses of the dead in a store that outlives them.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    # Each process would warn that DDP was told of unused parameters and found none (see train.network.wrap).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[COMMAND] = typed_command(command)
    os.environ[RUN_TIME] = datetime.now().strftime(TIME_FORMAT)
    # The package may stand in a checkout that nobody installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="spawn",
        max_restarts=max_restarts,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "convmixer.cli.main", *command)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(f"process {rank} was killed by {name}; the run has ended", exit_code=RUN_FAILED) from None
        return failure.exitcode
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
