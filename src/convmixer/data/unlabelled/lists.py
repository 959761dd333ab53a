"""Images that a list names: a text with a path or an address per line, or a table with a column of them."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convmixer.data.formats.signatures import detect_format
from convmixer.data.paths import Paths
from convmixer.data.source import Source
from convmixer.data.sources.manifest import json_records
from convmixer.data.storage import is_remote, parent, read_whole
from convmixer.data.unlabelled.located import EncodedImages, LocatedFiles
from convmixer.errors import RUN_FAILED, UserError
from convmixer.printable import shortened

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
# What a column of image files is called, in the order in which they are looked for.
COLUMNS = ("image", "path", "url", "image_url", "file", "file_name", "filename", "image_path", "filepath", "uri", "img")

_MAX_LIST = 2**31  # bytes
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def open_list(location: str, column: str | None = None) -> Source:
    """The images that a file names, at a path or an address; what is relative is so to the list's folder.

    In a text without a folder of its own for them, as `find` and `ls` write it, paths may also be relative to the
    current one. `column`: of a table; None: the first with a usual name. Raises UserError for a list without images.
    """
    try:
        content = read_whole(location, _MAX_LIST) if is_remote(location) else Path(location).read_bytes()
    except OSError as error:
        raise UserError(f"{location}: {error.strerror}", exit_code=RUN_FAILED) from None
    if content is None:
        raise UserError(f"there is no list {location}")
    text = _decoded(content, location)
    suffix = os.path.splitext(location.partition("?")[0] if is_remote(location) else location)[1].lower()
    entries = _lines(text) if suffix == ".txt" else _column(text, suffix, location, column)
    folder = parent(location) if is_remote(location) else os.path.dirname(location)
    return _named(list(entries), folder, location, may_be_here=suffix == ".txt")


def open_stdin() -> Source:
    """What stands on stdin: an image file, or a list of paths and addresses, one per line."""
    content = sys.stdin.buffer.read()
    if detect_format(content)[0]:
        return EncodedImages(["stdin"], [content])
    return _named(list(_lines(_decoded(content, "stdin"))), "", "stdin")


def _named(entries: Sequence[str], folder: str, where: str, may_be_here: bool = False) -> Source:
    if not entries:
        raise UserError(f"{where}: names no images")
    if may_be_here and not os.path.exists(os.path.join(folder, entries[0])) and os.path.exists(entries[0]):
        folder = ""
    if is_remote(folder):
        return LocatedFiles(Paths.of(each if is_remote(each) else f"{folder}/{each}" for each in entries))
    return LocatedFiles(Paths.of(each if is_remote(each) else os.path.join(folder, each) for each in entries))


def _decoded(content: bytes, where: str) -> str:
    if b"\0" in content:
        raise UserError(f"{where}: is no image that is read, and no text of paths", exit_code=RUN_FAILED)
    return content.decode("utf-8-sig", "surrogateescape")  # names of files may be of any bytes


def _lines(text: str) -> Iterator[str]:
    return (line.rstrip("\r") for line in text.split("\n") if line.strip())


def _column(text: str, suffix: str, where: str, column: str | None) -> Iterator[str]:
    rows = json_records(where, text.split("\n")) if suffix == ".jsonl" else _table(text, suffix, where)
    name = ""
    for line, row in rows:
        if name not in row:  # of a table once; what is behind its last column has no name
            name = chosen_column([each for each in row if each is not None], column, where)
        value = row.get(name)
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}, line {line}: no {name}", exit_code=RUN_FAILED)
        yield value


def chosen_column(names: Sequence[str], wanted: str | None, where: str) -> str:
    """The column of images: the one that is wanted, else the first with a usual name, in any case.

    Raises UserError where there is none.
    """
    by_name = {name.strip().lower(): name for name in names}
    found = [by_name[name] for name in ((wanted.lower(),) if wanted else COLUMNS) if name in by_name]
    if found:
        return found[0]
    meant = f"no column {wanted!r}" if wanted else f"no column of image files ({', '.join(COLUMNS[:4])} ...); --column"
    raise UserError(f"{where}: has {meant}; its columns are {shortened(list(names)) or 'none'}")


def _table(text: str, suffix: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_DELIMITERS[suffix], strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{where}: {error}", exit_code=RUN_FAILED) from None
