"""Images that a list names: a CSV, TSV or JSON Lines file with `path` and `label`, and `split` where it has both.

Paths are relative to the list's folder, or absolute. Labels are class names, or the numbers 0 to n-1.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from convmixer.data.classes import ClassMap, composed, refuse_single, sorted_classes
from convmixer.data.folders import Files
from convmixer.data.paths import Paths
from convmixer.data.source import names_of_split
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import shortened

SUFFIXES = (".csv", ".tsv", ".jsonl")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Row:
    """An entry of a list, at `line` of it, counted from 1."""

    line: int
    path: str
    label: str
    split: str | None


def accepts(data_url: str, split_dir: str) -> bool:
    return Path(data_url).suffix.lower() in SUFFIXES or Path(split_dir).suffix.lower() in SUFFIXES


def open_source(data_url: str | None, split_dir: str, *, train: bool, classes: ClassMap | None) -> Files:
    """The images of a split: of a whole list by its column, or `split_dir` is a list itself, below `data_url`."""
    if data_url is None:
        raise UserError(f"--data_url: the set manifest needs a list, a file of {', '.join(SUFFIXES)}, or its folder")
    option = "--train_dir" if train else "--val_dir"
    is_whole = Path(data_url).suffix.lower() in SUFFIXES
    path = Path(data_url if is_whole else Path(data_url) / split_dir).absolute()
    rows = list(_rows(path, "--data_url" if is_whole else option))
    if is_whole:
        rows = _of_split(rows, path, split_dir, train, option)
    if not rows:
        raise UserError(f"{option}: {path} names no images", exit_code=RUN_FAILED)
    if classes is None:
        known = sorted_classes(row.label for row in rows)
        refuse_single(known, f"{option}: {path}")
    else:
        known = classes
    for row in rows:
        if row.label not in known.labels:
            raise UserError(
                f"{path}, line {row.line}: the training classes have no {row.label!r}; "
                f"they are {shortened(known.names)}",
                exit_code=RUN_FAILED,
            )
    _check_first(path, rows[0])
    paths = Paths.of(os.path.join(path.parent, row.path) for row in rows)
    return Files(paths, np.array([known.labels[row.label] for row in rows]), known)


def _of_split(rows: list[Row], path: Path, split_dir: str, train: bool, option: str) -> list[Row]:
    """The rows of a split, by its name or one that means the same."""
    found = {row.split for row in rows}
    if None in found:
        line = next(row.line for row in rows if row.split is None)
        raise UserError(
            f"{path}, line {line}: no split; a list without that column is one of two: --data_url FOLDER --train_dir "
            "train.csv --val_dir val.csv"
        )
    name = next((name for name in names_of_split(split_dir, train=train) if name in found), None)
    if name is None:
        raise UserError(f"{option}: {path} has no split {split_dir!r}; it has {shortened(sorted(map(str, found)))}")
    return [row for row in rows if row.split == name]


def _check_first(path: Path, row: Row) -> None:
    """Where even the first image is not there, paths are not relative to the list, and all others are missing too."""
    image = path.parent / row.path
    if not image.exists():
        raise UserError(
            f"{path}, line {row.line}: there is no file {image}; paths are relative to the list's folder, or absolute",
            exit_code=RUN_FAILED,
        )


def _rows(path: Path, option: str) -> Iterator[Row]:
    if not path.is_file():
        raise UserError(f"{option}: there is no file {path}")
    try:
        # Not before it is needed: csv wants line ends as they are, and a mark of the byte order is no part of a name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            entries = json_records(str(path), file) if path.suffix.lower() == ".jsonl" else _table(path, file)
            for line, entry in entries:
                yield _row(path, line, entry)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} at byte {error.start}", exit_code=RUN_FAILED) from None
    except csv.Error as error:
        raise UserError(f"{path}: {error}", exit_code=RUN_FAILED) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", exit_code=RUN_FAILED) from None


def _table(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, delimiter=_DELIMITERS[path.suffix.lower()], strict=True)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in ("path", "label") if name not in names]
    if missing:
        raise UserError(f"{path}: its first line names no column {missing[0]!r}; it has {shortened(names) or 'none'}")
    reader.fieldnames = names
    for entry in reader:
        yield reader.line_num, entry


def json_records(where: str, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers of lines, from 1, and the object of each; blank ones are passed over. Raises UserError for another."""
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            _refuse(where, line, "no JSON object")
        yield line, entry


def _row(path: Path, line: int, entry: dict[str, Any]) -> Row:
    image, label, split = entry.get("path"), entry.get("label"), entry.get("split")
    if not isinstance(image, str) or not image or "\0" in image:
        _refuse(path, line, "no path")
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        _refuse(path, line, "no label")
    return Row(line, image, composed(str(label)), str(split) if split not in (None, "") else None)


def _refuse(path: Path | str, line: int, what: str) -> NoReturn:
    raise UserError(f"{path}, line {line}: {what}", exit_code=RUN_FAILED)
