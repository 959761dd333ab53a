"""The console command `convmixer`: finds the subcommand, and turns every way of ending into its exit code."""

from __future__ import annotations

import difflib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from convmixer import __version__
from convmixer.errors import RUN_FAILED, WRONG_USE, UserError

COMMANDS = {
    "train": "train a network on a folder of images",
    "eval": "evaluate weights on labelled images",
    "infer": "classify an image or a folder of images",
    "export": "export weights to ONNX, MINDIR or AIR",
    "eval-onnx": "evaluate an ONNX model on labelled images",
    "infer-onnx": "classify images with an ONNX model",
    "check-data": "find what is wrong with a data set of images",
    "doctor": "find what is wrong with this machine",
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
}
# Package -> what pip installs for it, where it is not the package itself.
_EXTRAS = {
    "onnx": "'convmixer[onnx]'",
    "onnxruntime": "'convmixer[onnx]'",
    "onnxscript": "'convmixer[onnx]'",
    "openvino": "'convmixer[openvino]'",
    "huggingface_hub": "'convmixer[hub]'",
    "mindspore": "'convmixer[mindspore]'",
    "PIL": "pillow",
    "yaml": "pyyaml",
}

# What writing to stdout ends with where a shell sends it to a file.
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# What no path that can be used ends with.
_PATH_FAULTS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, without the program's name, and return its exit code (0, 1, 2, 130 or 143)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the stream cannot encode is written in escapes; as Python does on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run_and_flush(words)
    except UserError as error:
        print(f"convmixer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("convmixer: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of stdout has gone (`convmixer infer ... | head`); the interpreter must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run_and_flush(words: list[str]) -> int:
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "convmixer"):
            raise
        raise UserError(_cannot_import(words[0], package, error)) from None
    except MemoryError as error:
        reason = str(error).rstrip(".") or "out of memory"
        raise UserError(f"{reason}; a smaller batch_size takes less", exit_code=RUN_FAILED) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _as_user_error(error) from None


def _as_user_error(error: OSError) -> Exception:
    """What the system refused, in a line: of a path that nobody looked at before, or of what is printed."""
    if error.filename is not None and error.strerror:
        code = WRONG_USE if error.errno in _PATH_FAULTS else RUN_FAILED
        return UserError(f"{error.filename}: {error.strerror}", exit_code=code)
    if error.errno not in _DISK_FAULTS:
        return error
    with suppress(OSError):  # else the interpreter would try again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UserError(f"output cannot be written: {error.strerror}", exit_code=RUN_FAILED)


def _cannot_import(command: str, package: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{command} needs {package}, which is not installed: pip install {_EXTRAS.get(package, package)}"
    return f"{package} is installed, but cannot be imported: {error}\n`convmixer doctor` tells more."


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
    module = import_module(f"convmixer.cli.{words[0].replace('-', '_')}_command")
    code: int = module.main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
