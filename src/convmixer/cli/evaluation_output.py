"""What the commands that evaluate tell beside their line: a table of the classes, files for programs, bad images."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from convmixer.config.evaluation import ScoreOptions
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.evaluation import name_unreadable
from convmixer.metrics.score import Score
from convmixer.metrics.tables import answers_as_csv, class_table, record, summary
from convmixer.runs.durable import write_file

logger = logging.getLogger(__name__)


def check_outputs(options: ScoreOptions) -> None:
    """Raises UserError for a file that cannot be written; before the evaluation, not after it."""
    for option, name in (("json", options.json_file), ("csv", options.csv_file)):
        if name is None:
            continue
        path = Path(name).absolute()
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise UserError(f"--{option}: {path} cannot be written; is {path.parent} a folder that you may write to?")


def tell(score: Score, source: Source, options: ScoreOptions) -> int:
    """Log and write what is known beside the line of results, name the images that are not in it, and return the exit
    code."""
    classes = source.classes.names
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in summary(score, len(classes)).items())
    logger.info(numbers)
    for line in class_table(score, classes):
        logger.info(line)
    if options.json_file is not None:
        _write(options.json_file, (json.dumps(record(score, source), indent=1) + "\n").encode())
    if options.csv_file is not None:
        _write(options.csv_file, answers_as_csv(score, source))
    if score.not_finite:
        logger.warning(
            f"{score.not_finite} of {score.count} images got logits that are no numbers; they count as wrong"
        )
    name_unreadable(score.bad, score, source)
    return RUN_FAILED if score.bad or score.not_finite else 0


def _write(name: str, content: bytes) -> None:
    try:
        write_file(Path(name), content)
    except OSError as error:
        raise UserError(f"{name}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
    logger.info(f"written: {name}")
