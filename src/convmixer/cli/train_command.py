"""`convmixer train`: from options to a trained network."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from shlex import join, quote
from typing import TYPE_CHECKING, NoReturn

from convmixer.cli.user_errors import user_error_for
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config, refuse_contradictions
from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.saved import TRAIN as COMMAND
from convmixer.terminal import logs

if TYPE_CHECKING:
    from convmixer.distributed.processes import Processes

__all__ = ["COMMAND", "run"]
logger = logging.getLogger(__name__)


def run(resolved: Resolved[Config]) -> int:
    config = resolved.options
    refuse_contradictions(config)
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.distributed.processes import Processes

    processes = Processes.from_environment()
    if processes.count == 1 and config.device_num > 1:
        from convmixer.distributed.launch import launch

        return launch(config.device_num, ["train", *resolved.argv], max_restarts=config.max_restarts)
    if processes.count != config.device_num and not resolved.is_default("device_num"):
        raise UserError(
            f"device_num: is {config.device_num}, but {processes.count} processes were started; leave it out"
        )
    if processes.count > 1:
        _train_and_leave(resolved, processes)
    return _train(resolved, processes)


def _train_and_leave(resolved: Resolved[Config], processes: Processes) -> NoReturn:
    from convmixer.distributed.leaving import leave

    try:
        code = _train(resolved, processes)
    except BaseException as error:  # also of ours: Python's own end of the process may wait for the other ones
        code = _end_of(error, processes)
    leave(code)


def _end_of(error: BaseException, processes: Processes) -> int:
    """Say what ended this process of several, a fault of ours with its traceback, and return its exit code.

    Mostly all processes meet it, or one meets it and the others miss that one: the first to fail says it.
    """
    user_error = user_error_for("train", error)
    if not processes.post("error"):
        # Whoever started the processes takes the code of the one that it finds ended first.
        time.sleep(_LATER)
    elif user_error is not None:
        logs.print_error(str(user_error))
    elif isinstance(error, KeyboardInterrupt):
        logs.print_error("interrupted")
    else:
        # torch's own, which puts the rank before each line.
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return RUN_FAILED if user_error is None else user_error.exit_code


_LATER = 0.5  # seconds, a few times as long as a launcher takes to look at its processes again


def _train(resolved: Resolved[Config], processes: Processes) -> int:
    from convmixer.runs.folders import typed_command
    from convmixer.training.run import run_training
    from convmixer.training.signals import Stopped

    # Asked for now: the process that tells it may be gone when the run stops.
    command = typed_command(["train", *resolved.argv])
    try:
        result = run_training(resolved, processes, command)
    except Stopped as stop:
        if processes.is_first:
            # A run has saved its options: what started it is enough, without them.
            started = command.removesuffix(join(resolved.argv)).rstrip()
            again = f"{started} --resume {quote(str(stop.checkpoint.parent if stop.checkpoint else 'auto'))}"
            logger.warning(f"{stop}, saved at step {stop.step}; {again} goes on")
        return stop.exit_code
    if result is not None:
        if resolved.options.report:
            from convmixer.report.write import report_at_the_end

            report_at_the_end(result.summary)
        # Where nobody reads them, the run is done and saved all the same.
        with contextlib.suppress(BrokenPipeError):
            print(f"best: {result.best_weights} (Top1-Acc {result.best_top1})")
            print(f"last: {result.last_checkpoint}", flush=True)
    return 0
