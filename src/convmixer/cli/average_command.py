"""`convmixer average`: the mean of the last checkpoints of a run, or of weight files."""

from __future__ import annotations

import logging
from pathlib import Path
from shlex import quote
from typing import Any

from convmixer.arch import ArchitectureHints
from convmixer.config.average import AverageOptions
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.runs.checkpoints import MALFORMED, MANIFEST, checkpoints, run_of
from convmixer.runs.folders import sibling
from convmixer.runs.saved import run_folder

logger = logging.getLogger(__name__)

COMMAND = Command(
    "average",
    "Average the weights of a run's last checkpoints (their averaged weights where they have any), or of files.",
    AverageOptions,
    positional="weights",
)


def run(resolved: Resolved[AverageOptions]) -> int:
    options = resolved.options
    if not options.weights:
        raise UserError("WEIGHTS: a run, or several weight files or checkpoint folders, are needed")
    paths = [path for word in options.weights for path in _networks(Path(word), options)]
    if len(paths) < 2:
        raise UserError(f"{paths[0]}: is alone; at least two networks have an average")
    output = _output(Path(options.output), paths)
    # torch is imported only now, so that --help and wrong options answer at once.
    from convmixer.weights.average import average
    from convmixer.weights.load import complete
    from convmixer.weights.write import write_weights

    weights = average(paths, options.entry)
    architecture, notes = complete(weights, ArchitectureHints(options.arch, activation=options.activation))
    for line in notes:
        logger.info(line)
    # Its score is that of one of them.
    extra = {name: value for name, value in weights.metadata.items() if name not in ("top1", "entry")}
    write_weights(
        output,
        weights.state,
        architecture=architecture,
        classes=weights.classes,
        preprocessing=weights.preprocessing,
        extra={**_of_the_run(paths[-1]), **extra, "averaged": [str(path) for path in paths]},
    )
    logger.info(f"{output}: the mean of {len(paths)}, {paths[0]} to {paths[-1]}")
    logger.info(f"convmixer eval FOLDER --pretrained {quote(str(output))} evaluates it")
    print(output)
    return 0


def _networks(path: Path, options: AverageOptions) -> list[Path]:
    """The networks that a word of the command line means: a run's last checkpoints, or what lies there."""
    if path.is_file() or (path / MANIFEST).is_file():
        return [path]
    folder = run_folder(path, Path(options.ckpt_root_dir))
    return [path] if folder is None else checkpoints(folder)[-options.last :]


def _output(path: Path, sources: list[Path]) -> Path:
    """Raises UserError for a wrong ending, or where the file would replace one that it is made from."""
    if path.suffix != ".safetensors":
        raise UserError(f"--output: {path} must end in .safetensors")
    if not path.parent.is_dir():
        raise UserError(f"--output: there is no folder {path.parent}")
    for source in sources:
        inside = source.is_dir() and path.parent.samefile(source)
        if inside or (path.exists() and source.exists() and path.samefile(source)):
            raise UserError(f"--output: {path} is one of those that are averaged; name another file")
    return path


def _of_the_run(source: Path) -> dict[str, Any]:
    """Which images a run has held out, as its best weights say it, where `source` is a checkpoint of a run."""
    from convmixer.weights.read import read_weights

    try:
        best = Path(run_of(source)["best"]) / "best.safetensors"
    except (OSError, *MALFORMED):
        return {}
    beside = sibling(source.absolute().parent, "best_ckpt_root_dir") / best.name
    for path in (beside, best):
        if path.is_file():
            facts = read_weights(path).metadata
            return {"held_out": facts["held_out"]} if "held_out" in facts else {}
    return {}
