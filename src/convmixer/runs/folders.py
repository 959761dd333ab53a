"""The folders of a run and its provenance: what was asked for, on what and with what, so that it can be redone."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from convmixer.config.options import options_of
from convmixer.config.resolved import Resolved
from convmixer.config.run import FolderOptions
from convmixer.config.schema import Config
from convmixer.errors import RUN_FAILED, UserError
from convmixer.machine import usable_cores
from convmixer.runs.durable import remove_leftovers, write_file

logger = logging.getLogger(__name__)

CONFIG, RECORD = "config.yaml", "run.json"
# Where the three folders of runs lie if nobody says otherwise, by the options that say so.
ROOTS = {option.name: str(option.default) for option in options_of(FolderOptions)}
PACKAGES = ("convmixer", "torch", "numpy", "pillow", "pydantic", "safetensors", "triton")


@dataclass(frozen=True)
class RunFolders:
    """Name of a run and its folder under each of the three roots."""

    name: str
    summary: Path
    checkpoints: Path
    best: Path

    @classmethod
    def of(cls, config: Config, name: str) -> RunFolders:
        roots = (config.summary_root_dir, config.ckpt_root_dir, config.best_ckpt_root_dir)
        return cls(name, *(Path(root) / name for root in roots))


def sibling(folder: Path, root: str) -> Path:
    """Where the folder of a run below another root lies, if that is beside this one's; `root`: a key of ROOTS."""
    folder = folder.absolute()
    return folder.parent.parent / Path(ROOTS[root]).name / folder.name


def run_suffix(config: Config) -> str:
    """What follows the time in the name of a run: `_<arch>[_<postfix>]`."""
    postfix = re.sub(r"[^\w.+-]+", "-", config.model_postfix)
    return f"_{config.arch}" + (f"_{postfix}" if postfix else "")


def create_run(config: Config, stamp: str) -> RunFolders:
    """New folders named `<stamp>_<arch>[_<postfix>]`, with `-2` after a time that is taken; stamp: `yyyy-mm-dd_HHMMSS`.

    Raises UserError where they cannot be made.
    """
    roots = {
        os.path.realpath(root) for root in (config.summary_root_dir, config.ckpt_root_dir, config.best_ckpt_root_dir)
    }
    if len(roots) < 3:
        raise UserError(
            "summary_root_dir, ckpt_root_dir and best_ckpt_root_dir must be three folders; two are the same"
        )
    for attempt in range(1, 1000):
        name = stamp + (f"-{attempt}" if attempt > 1 else "") + run_suffix(config)
        folders = RunFolders.of(config, name)
        try:
            folders.summary.mkdir(parents=True)
            folders.checkpoints.mkdir(parents=True)
            folders.best.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be made: {error.strerror}", exit_code=RUN_FAILED) from None
        return folders
    raise UserError(f"{folders.summary}: a thousand runs of this name are there already", exit_code=RUN_FAILED)


def reopen_run(folders: RunFolders) -> None:
    """The folders of a run that goes on, made where they are gone. Raises UserError (exit 1) where they cannot be."""
    for path in (folders.summary, folders.checkpoints, folders.best):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made: {error.strerror}", exit_code=RUN_FAILED) from None
    for path in (folders.summary, folders.best):
        remove_leftovers(path)


def keep_record(path: Path, content: str | bytes) -> bool:
    """Write a file of a run's record, whole or not at all; where the disk refuses say so, and return False.

    The record serves people: a run goes on without it.
    """
    try:
        write_file(path, content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        logger.warning(f"{path}: could not be written: {error.strerror}; the run goes on")
        return False
    return True


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, its cores that this process may use, and the memory of the machine in GiB."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8", errors="replace"))
        model = match[1] if match else model
    return {"processor": model, "cores": usable_cores(), "system": platform.platform()}


# Names the command of a run to its processes, which are started by another one.
COMMAND = "CONVMIXER_COMMAND"


def typed_command(words: Sequence[str]) -> str:
    """The command line of this process as a shell takes it: that of `convmixer WORDS`, of a wrapper, or of torchrun.

    `words`: the subcommand and its options.
    """
    given = os.environ.get(COMMAND)
    if given is not None:
        return given
    own = sys.argv[1:]
    if own != list(words) and own != list(words[1:]):
        return shlex.join(["convmixer", *words])  # called from Python
    agent = Path(f"/proc/{os.getppid()}/cmdline")
    if "TORCHELASTIC_RUN_ID" in os.environ and agent.is_file():
        return shlex.join(os.fsdecode(word) for word in agent.read_bytes().removesuffix(b"\0").split(b"\0"))
    program = sys.orig_argv[: len(sys.orig_argv) - len(own)]
    if Path(sys.argv[0]).name == "convmixer":
        # The console command; the interpreter before it comes from the first line of its file.
        found = shutil.which("convmixer")
        is_found = found is not None and os.path.realpath(found) == os.path.realpath(sys.argv[0])
        program = ["convmixer" if is_found else sys.argv[0]]
    return shlex.join([*program, *own])


def read_record(folder: Path) -> dict[str, Any]:
    """`run.json` of a summary; empty where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def write_provenance(
    folder: Path, resolved: Resolved[Config], command: str, class_names: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """`config.yaml` (options and their origins), `run.json` (command, versions, hardware, facts), `classes.json`.

    Of a run that goes on the command stays the first one; that of now is `resumed_with`.

    A run goes on where they cannot be written, see `keep_record`.
    """
    lines = []
    for name, value in resolved.options.model_dump(mode="json").items():
        # One option per line, with room for a comment: the flow style's braces are left out.
        text = yaml.safe_dump({name: value}, default_flow_style=True, width=math.inf).strip()[1:-1]
        lines.append(f"{text}  # {resolved.origins[name]}\n")
    recipe = {"recipe": resolved.recipe, "recipe_named": resolved.recipe_named}
    before = read_record(folder)
    if "command" in before:  # of a run that goes on
        command, facts = before["command"], {"resumed_with": command, **facts}
    record = {"command": command, **recipe, "versions": versions(), "hardware": hardware(), **facts}
    files = {
        CONFIG: "".join(lines),
        RECORD: json.dumps(record, indent=1),
        "classes.json": json.dumps(list(class_names), indent=0),
    }
    # What is wrong with the disk is logged once.
    all(keep_record(folder / name, text) for name, text in files.items())
