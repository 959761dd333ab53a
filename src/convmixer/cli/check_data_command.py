"""`convmixer check-data`: read every file of an image folder and say what is wrong with it, before a run finds out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from convmixer.cli.output_file import as_json, check_writable, write_output
from convmixer.config.checks import CheckDataOptions
from convmixer.config.command import Command
from convmixer.config.resolved import Resolved
from convmixer.data.inspection.html import to_html
from convmixer.data.inspection.report import DatasetReport, inspect, to_record, to_text
from convmixer.data.inspection.splits import Split, list_split
from convmixer.data.splits import FOLDERS, Splits, check_splits, source_of
from convmixer.data.storage import joined
from convmixer.errors import RUN_FAILED, UserError
from convmixer.machine import usable_cores
from convmixer.terminal.progress import Progress

logger = logging.getLogger(__name__)

COMMAND = Command(
    "check-data",
    "Read every image of a data set and report what is broken, doubled, leaking or lopsided. Exit code 1: something "
    "is. Nothing is written below DATA.",
    CheckDataOptions,
    positional="data",
)


def run(resolved: Resolved[CheckDataOptions]) -> int:
    options = resolved.options
    data, splits = _open(options)
    outputs = [
        _output(path, f"--{name}", [data, *(split.folder for split in splits)])
        for name, path in (("json", options.json_file), ("html", options.html_file))
    ]
    workers = usable_cores() if options.num_parallel_workers is None else options.num_parallel_workers
    with Progress(sum(len(split.paths) for split in splits), "check-data") as progress:
        report = inspect(
            data,
            splits,
            min_side=options.image_size,
            max_imbalance=options.max_imbalance,
            workers=workers,
            on_done=progress.add,
            max_pixels=options.max_pixels,
        )
        rate = progress.rate
    logger.info(f"{report.images} images, {rate:.1f} img/s")
    print(to_text(report))
    _write(report, *outputs)
    return RUN_FAILED if report.findings else 0


def _open(options: CheckDataOptions) -> tuple[str, tuple[Split, ...]]:
    """Where the data are, and their splits. Raises UserError where they are not laid out as such."""
    if options.data is None:
        raise UserError("DATA: the folder of the data set is needed")
    data, is_folders = joined(None, options.data), source_of(FOLDERS, options.data, options.train_dir) == FOLDERS
    if not os.path.exists(data) and is_folders:
        raise UserError(f"DATA: there is no folder {data}")
    train_dir, val_dir = options.train_dir, options.val_dir
    if val_dir is not None:
        found = Splits(FOLDERS, options.data, train_dir, val_dir).laid_out("DATA")
        train_dir, val_dir = found.train_dir, found.val_dir
        if found.remark is not None:
            logger.info(found.remark)
    # Where no images are apart for evaluation, training holds some of these out.
    splits = [list_split("all" if train_dir == "." else "train", options.data, train_dir, "--train_dir")]
    if val_dir is not None:
        if is_folders and not os.path.isdir(joined(data, val_dir)):
            where = f"there is no folder {joined(data, val_dir)}"
            raise UserError(f"--val_dir: {where}; --val_dir none checks the training images alone")
        check_splits(FOLDERS, options.data, train_dir, val_dir)
        splits.append(list_split("val", options.data, val_dir, "--val_dir"))
    return data, tuple(splits)


def _output(name: str | None, option: str, data: Sequence[str]) -> Path | None:
    """Path of a report that may be written; checked before the hours of reading, not after."""
    path = check_writable(name, option)
    if path is None:
        return None
    for folder in data:
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise UserError(f"{option}: {path} lies in the data folder {folder}, which is never written to")
    return path


def _write(report: DatasetReport, json_file: Path | None, html_file: Path | None) -> None:
    if json_file is not None:
        write_output(json_file, as_json(to_record(report)), "report")
    if html_file is not None:
        write_output(html_file, to_html(report), "report")
