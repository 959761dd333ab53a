"""The console command `convmixer`: finds the subcommand, and turns every ending into its exit code."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from convmixer import __version__
from convmixer.cli.user_errors import user_error_for
from convmixer.errors import WRONG_USE, UserError
from convmixer.signals import has_agent
from convmixer.terminal import logs
from convmixer.terminal.streams import standard_streams

logger = logging.getLogger(__name__)

COMMANDS = {
    "train": "train a network on a folder of images",
    "eval": "evaluate weights on labelled images",
    "infer": "classify an image or a folder of images",
    "bulk": "classify very many images, in parts, by one process or many",
    "serve": "serve a model: a page for people, an interface for programs",
    "similar": "find images that look alike to a network",
    "export": "export weights to ONNX, OpenVINO, PT2, ExecuTorch and others",
    "benchmark": "compare model files on this machine: size, speed, accuracy",
    "eval-onnx": "evaluate an ONNX model on labelled images",
    "infer-onnx": "classify images with an ONNX model",
    "check-data": "find what is wrong with a data set of images",
    "pack": "write a data set as tar shards, as it is or smaller",
    "plan": "say what a run will take, by a short measurement",
    "lr-find": "suggest a learning rate, by a range test",
    "runs": "list the runs with their scores",
    "report": "explain a run in a page, or compare several",
    "doctor": "find what is wrong with this machine",
    "average": "average the last checkpoints of a run, or weight files",
    "convert": "write weights in another program's layout",
    "push": "publish weights on the Hugging Face hub",
}
# What other programs call them.
OTHER_NAMES = {
    "fit": "train",
    "finetune": "train",
    "resume": "train",
    "test": "eval",
    "validate": "eval",
    "evaluate": "eval",
    "predict": "infer",
    "classify": "infer",
    "inference": "infer",
    "onnx": "export",
    "upload": "push",
    "batch": "bulk",
    "server": "serve",
    "deploy": "serve",
    "duplicates": "similar",
    "search": "similar",
    "neighbours": "similar",
    "neighbors": "similar",
    "batch-predict": "bulk",
    "compare": "benchmark",
    "bench": "benchmark",
    "speed": "benchmark",
    "lr_find": "lr-find",
    "find-lr": "lr-find",
    "lr-finder": "lr-find",
    "estimate": "plan",
    "summary": "plan",
    "ls": "runs",
    "list": "runs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, without the program's name, and return its exit code.

    0, 1 or 2; 128 + n where signal n ended it: 129, 130, 138, 143 of a stopped run, 141 where nobody reads the results.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with standard_streams(), logs.shown():
        try:
            code = _run_explained(words)
            sys.stdout.flush()
            return code
        except UserError as error:
            if _speaks():
                logs.print_error(str(error))
            return error.exit_code
        except KeyboardInterrupt:
            if _speaks():
                logs.print_error("interrupted")
            return 128 + signal.SIGINT
        except BrokenPipeError:
            # The reader of stdout has gone: `convmixer infer ... | head`.
            return 128 + signal.SIGPIPE


def _speaks() -> bool:
    """Of the processes that an agent started on this machine, the first says what all of them meet."""
    return not has_agent() or os.environ.get("LOCAL_RANK", "0") == "0"


def _run_explained(words: list[str]) -> int:
    """Run it; what no command looked at before is a UserError all the same."""
    try:
        return _run(words)
    except (ImportError, MemoryError, OSError) as error:
        user_error = user_error_for(words[0], error)
        if user_error is None:
            raise
        raise user_error from None


def _run(words: list[str]) -> int:
    if words and words[0] == "help":
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print("usage: convmixer COMMAND ...\n")
        for name, text in COMMANDS.items():
            print(f"  {name:<12}{text}")
        print("\n'convmixer COMMAND --help' lists the options of a command.")
        return 0 if words else WRONG_USE
    if words[0] in ("-V", "--version", "version"):
        print(f"convmixer {__version__}")
        return 0
    if words[0].startswith("-"):
        raise UserError(f"a command comes before {words[0]}, as in convmixer train; commands: {', '.join(COMMANDS)}")
    if words[0] not in COMMANDS:
        name = words[0].lower()
        near = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else "commands: " + ", ".join(COMMANDS)
        raise UserError(f"unknown command {words[0]!r}; {hint}")
    # What a machine may lack is asked for here, where its absence becomes a line.
    from convmixer.config.loading import parse
    from convmixer.config.options import options_of

    module = import_module(f"convmixer.cli.{words[0].replace('-', '_')}_command")
    resolved = parse(module.COMMAND, words[1:])
    logs.configure(resolved.options)
    if logger.isEnabledFor(logging.DEBUG):
        secrets = {option.name for option in options_of(module.COMMAND.model) if option.secret}
        for name, origin in resolved.origins.items():
            value = getattr(resolved.options, name)
            logger.debug(f"option {name}: {'***' if name in secrets and value else value} ({origin})")
    code: int = module.run(resolved)
    return code


if __name__ == "__main__":
    sys.exit(main())
