"""`convmixer train`: from options to a trained network."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any, NoReturn

from convmixer.cli.explained import explained
from convmixer.config.loading import DEFAULT, Command, Resolved, parse
from convmixer.config.model_zoo import difference
from convmixer.config.schema import Config
from convmixer.errors import RUN_FAILED, UserError

COMMAND = Command(
    "train",
    "Train a ConvMixer. Without --config: on the built-in digits, or with --data_url by the recipe small_folder.",
    Config,
    takes_config=True,
)

FOLDER_RECIPE = "small_folder"


def default_recipe(given: Mapping[str, Any]) -> str:
    """The recipe that is used where --config is left out."""
    kind = str(given.get("set", "imagenet" if "data_url" in given else "digits")).lower()
    return {"digits": "digits", "cifar10": "cifar10_256_8"}.get(kind, FOLDER_RECIPE)


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv, default_recipe=default_recipe)
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.distributed.processes import Processes

    check_recompute(resolved.options)
    processes = Processes.from_environment()
    wanted = resolved.options.device_num
    if processes.count == 1 and wanted > 1:
        from convmixer.distributed.launch import launch

        return launch(wanted, ["train", *argv], max_restarts=resolved.options.max_restarts)
    if processes.count != wanted and resolved.origins["device_num"] != DEFAULT:
        raise UserError(f"device_num: is {wanted}, but {processes.count} processes were started; leave it out")
    if processes.count > 1:
        _train_and_leave(resolved, processes)
    return _train(resolved, processes)


def check_recompute(config: Config) -> None:
    """Raises UserError where the network is to be compiled too."""
    if config.recompute and (config.compile or config.execution == "compile"):
        raise UserError(
            "--recompute: torch.compile decides by itself what it keeps and what it computes again; leave one out"
        )


def _train_and_leave(resolved: Resolved[Config], processes: Any) -> NoReturn:
    from convmixer.distributed.leaving import leave

    try:
        code = _train(resolved, processes)
    except BaseException as error:  # also of ours: Python's own end of the process may wait for the other ones
        code = _end_of(error, processes)
    leave(code)


def _end_of(error: BaseException, processes: Any) -> int:
    """Say what ended this process of several, a fault of ours with its traceback, and return its exit code.

    Mostly all processes meet it, or one meets it and the others miss that one: the first to fail says it.
    """
    told = explained("train", error)
    if not processes.tell("error"):
        # Whoever started the processes takes the code of the one that it finds ended first.
        time.sleep(_LATER)
    elif told is not None:
        print(f"convmixer: {told}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("convmixer: interrupted", file=sys.stderr)
    else:
        # torch's own, which puts the rank before each line.
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return RUN_FAILED if told is None else told.exit_code


_LATER = 0.5  # seconds, a few times as long as a launcher takes to look at its processes again


def remarks(resolved: Resolved[Config]) -> list[str]:
    """What a user who comes from the model zoo must know of the defaults."""
    if resolved.options.defaults == "model_zoo":
        return ["defaults are the model zoo's where it has others"]
    line = difference(resolved)
    return [] if line is None else [line]


def _train(resolved: Resolved[Config], processes: Any) -> int:
    from convmixer.devices import choose_device
    from convmixer.distributed.processes import process_group
    from convmixer.runs.folders import typed_command
    from convmixer.terminal.progress import note
    from convmixer.training.build import build_trainer
    from convmixer.training.resolve import resolve_run
    from convmixer.training.signals import Stopped

    config = resolved.options
    # Asked for now: the process that tells it may be gone when the run stops.
    command = typed_command(["train", *resolved.argv])
    index = config.device_id if processes.count == 1 else processes.local_rank
    device, remark = choose_device(config.device_target, index, is_explicit=resolved.is_explicit("device_target"))
    if processes.is_first:
        note(f"recipe {resolved.recipe}")
        for line in remarks(resolved):
            note(line)
        if remark is not None:
            note(remark)
    with process_group(processes, device, config.dist_timeout):
        say = note if processes.is_first else lambda _: None
        trainer = build_trainer(resolve_run(resolved, device, processes, command, say), say)
        try:
            trainer.run()
        except Stopped as stop:
            if processes.is_first:
                again = f"{command} --resume {quote(str(trainer.checkpoint_manager.latest))}"
                note(f"{stop}, saved at step {trainer.state.step}; {again} goes on")
            return stop.exit_code
    if trainer.checkpoint_manager.folders is not None:
        # Where nobody reads them, the run is done and saved all the same.
        with contextlib.suppress(BrokenPipeError):
            print(f"best: {trainer.checkpoint_manager.best} (Top1-Acc {trainer.state.best_top1})")
            print(f"last: {trainer.checkpoint_manager.latest}", flush=True)
    return 0
