"""What a run was started with, as its summary has it: `--resume` without a recipe goes on with these options."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from convmixer.config import commands
from convmixer.config.log import LogOptions
from convmixer.config.options import options_of
from convmixer.config.paths import expanded_path
from convmixer.config.recipes import read_recipe
from convmixer.config.resolved import Saved
from convmixer.errors import UserError
from convmixer.runs.checkpoints import MALFORMED, MANIFEST, checkpoints, newest_run, run_of
from convmixer.runs.folders import CONFIG, ROOTS, read_record, sibling

logger = logging.getLogger(__name__)

# Not the run's own: what each command line says anew.
_OF_A_COMMAND_LINE = {"resume", "force_resume", *(option.name for option in options_of(LogOptions))}
_LINE = re.compile(r"(\w+): .*?  # (.*)")


def saved_options(given: Mapping[str, Any], say: Callable[[str], None] = logger.info) -> Saved | None:
    """The options of the run that `resume` among the given options means, None where there is none or it has none.

    `say` gets a line on where they are from.
    """
    asked = given.get("resume")
    if not isinstance(asked, str):
        return None
    root = Path(str(given.get("ckpt_root_dir", ROOTS["ckpt_root_dir"])))
    folder = _newest(root, given) if asked == "auto" else run_folder(Path(_expanded(asked)), root)
    if folder is None:
        return None
    summary = _summary(folder)
    if summary is None:
        logger.warning(f"{folder}: its {CONFIG} is in no summary beside it; only the options given here hold")
        return None
    values = {name: value for name, value in read_recipe(summary / CONFIG).items() if name not in _OF_A_COMMAND_LINE}
    if "/" in str(values.get("pretrained")) and not Path(_expanded(str(values["pretrained"]))).exists():
        del values["pretrained"]  # all that it decided is among the options
    record = read_record(summary)
    recipe, named = record.get("recipe"), record.get("recipe_named", "--config" in str(record.get("command")))
    # A checkpoint that was named stays the one; else it is the run that is gone on with, whatever is newest then.
    is_checkpoint = asked != "auto" and (Path(_expanded(asked)) / MANIFEST).is_file()
    resume = _expanded(asked) if is_checkpoint else str(folder)
    say(f"--resume: the options of {summary / CONFIG}")
    return Saved(values | {"resume": resume}, origins_in(summary / CONFIG), recipe, bool(named))


def run_folder(path: Path, root: Path) -> Path | None:
    """The folder of checkpoints of a run: `path` is it or one of its checkpoints, its summary, its folder of best
    weights, or its name, below the folder of checkpoints `root`."""
    if (path / MANIFEST).is_file():
        return path.resolve().parent
    places = (path, root / path.name, sibling(path, "ckpt_root_dir"))
    return next((place for place in places if checkpoints(place)), None)


def _newest(root: Path, given: Mapping[str, Any]) -> Path | None:
    """Of the runs with checkpoints the one that was written last, of those with the architecture and the data that are
    asked for."""
    runs = [path for path in root.iterdir() if path.is_dir() and checkpoints(path)] if root.is_dir() else []
    like = [run for run in runs if _is_like(run, given)]
    return newest_run(like) if like else None


def _is_like(run: Path, given: Mapping[str, Any]) -> bool:
    wanted = {name: str(given[name]) for name in ("model_postfix", "set") if name in given}
    if f"_{given.get('arch', '')}".lower() not in run.name.lower():
        return False
    if not wanted and "data_url" not in given:
        return True
    summary = _summary(run)
    try:
        saved = {} if summary is None else read_recipe(summary / CONFIG)
    except UserError:
        return False
    same = all(str(saved.get(name)).lower() == value.lower() for name, value in wanted.items())
    return same and ("data_url" not in given or _place(saved.get("data_url")) == _place(given["data_url"]))


def _place(data_url: Any) -> str:
    text = str(data_url)
    return text if "://" in text else str(Path(_expanded(text)).absolute())


def _expanded(path: str) -> str:
    try:
        return expanded_path(path)
    except ValueError:
        return path  # the check of the options says what is wrong with it


def _summary(run: Path) -> Path | None:
    """The summary of a run: beside its checkpoints, or where the newest of them says that it lay."""
    places = [sibling(run, "summary_root_dir")]
    try:
        places.append(Path(run_of(checkpoints(run)[-1])["summary"]))
    except (OSError, IndexError, *MALFORMED):
        pass
    return next((place for place in places if (place / CONFIG).is_file()), None)


def origins_in(config: Path) -> dict[str, str]:
    """Where each option came from, which stands behind it as a comment."""
    lines = config.read_text(encoding="utf-8").splitlines()
    found = {match[1]: match[2] for match in map(_LINE.fullmatch, lines) if match}
    return {name: origin for name, origin in found.items() if name not in _OF_A_COMMAND_LINE}


TRAIN = replace(commands.TRAIN, saved=saved_options)
