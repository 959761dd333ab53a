"""What the commands that evaluate tell beside their line: a table of the classes, files for programs, bad images."""

from __future__ import annotations

import logging
from pathlib import Path

from convmixer.cli.output_file import as_json, check_writable, write_output
from convmixer.config.evaluation import ScoreOptions
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED
from convmixer.evaluation import name_unreadable
from convmixer.metrics.score import Score
from convmixer.metrics.tables import answers_as_csv, class_table, record, summary

logger = logging.getLogger(__name__)


def check_outputs(options: ScoreOptions) -> None:
    """Raises UserError for a file that cannot be written; before the evaluation, not after it."""
    for option, name in (("--json", options.json_file), ("--csv", options.csv_file)):
        check_writable(name, option)


def tell(score: Score, source: Source, options: ScoreOptions) -> int:
    """Log and write what is known beside the line of results, name the images that are not in it, and return the exit
    code."""
    classes = source.classes.names
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in summary(score, len(classes)).items())
    logger.info(numbers)
    for line in class_table(score, classes):
        logger.info(line)
    if options.json_file is not None:
        write_output(Path(options.json_file), as_json(record(score, source)), "written")
    if options.csv_file is not None:
        write_output(Path(options.csv_file), answers_as_csv(score, source), "written")
    if score.not_finite:
        logger.warning(
            f"{score.not_finite} of {score.count} images got logits that are no numbers; they count as wrong"
        )
    name_unreadable(score.bad, score, source)
    return RUN_FAILED if score.bad or score.not_finite else 0
