"""The file that answers go to: its kind is told by the end of its name."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from convmixer.answers.json_document import ClassDocument, FullDocument
from convmixer.answers.record import record_of
from convmixer.answers.rows import CsvRows, JsonLines, ParquetRows, require_parquet
from convmixer.errors import UserError
from convmixer.prediction import Prediction

STDOUT = "-"
_KINDS: dict[str, type[JsonLines | CsvRows | ParquetRows | FullDocument]] = {
    ".json": FullDocument,
    ".jsonl": JsonLines,
    ".csv": CsvRows,
    ".parquet": ParquetRows,
}


class AnswerWriter(Protocol):
    """Takes answers as they come. `is_file`: it is no pipe, which may wait for its reader; `takes_errors`: it has a
    place for images that could not be read."""

    count: int
    is_file: bool
    takes_errors: bool

    def add(self, prediction: Prediction) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class StdoutLines:
    """A record per line on stdout, in place of the lines for people."""

    is_file, takes_errors = False, True

    def __init__(self) -> None:
        self.count = 0

    def add(self, prediction: Prediction) -> None:
        """Print it. Raises BrokenPipeError where its reader has gone."""
        import json

        print(json.dumps(record_of(prediction)), flush=True)
        self.count += 1

    def __enter__(self) -> StdoutLines:
        return self

    def __exit__(self, *ending: object) -> None:
        """Nothing is left to do."""


def check_output(name: str, *, embeddings: bool = False) -> None:
    """Refuse, before the work, a file that cannot be written, or that would lose something else than answers: an image,
    weights. Nothing is left there. Raises UserError.

    `embeddings`: feature vectors are to go there.
    """
    if name == STDOUT:
        return
    path = Path(name)
    kind = _kind(path)
    if embeddings and not kind.takes_embeddings:
        raise UserError(f"--embed: feature vectors go to an --output of .jsonl or .parquet, not {path.suffix}")
    if kind is ParquetRows:
        require_parquet()
    try:
        if path.is_dir():
            raise UserError(f"--output: {path} is a folder; name a file in it")
        if path.exists() and not path.is_file():
            if kind is ParquetRows:
                raise UserError(f"--output: {path} is no file; Parquet is written to one")
            return  # a device or a pipe: opening it may wait for its reader
        is_new = not path.exists()
        with path.open("ab+") as file:
            file.seek(0)
            head = file.read(16)
        if is_new:
            path.unlink()
    except OSError as error:
        reason = error.strerror if path.parent.is_dir() else f"there is no folder {path.parent}"
        raise UserError(f"--output: {path} cannot be written: {reason}") from None
    if head and not head.startswith(kind.begins_with):
        raise UserError(f"--output: {path} is there already and holds no answers; name another file")


def open_answers(name: str, *, full: bool, topk: int) -> AnswerWriter:
    """The writer of a file, or of stdout for `-`. `full`: of a JSON document, more than the classes."""
    if name == STDOUT:
        return StdoutLines()
    path = Path(name)
    kind = _kind(path)
    if kind is FullDocument and not full:
        return ClassDocument(path, topk)
    return kind(path, topk)


def _kind(path: Path) -> type[JsonLines | CsvRows | ParquetRows | FullDocument]:
    # A name of another end, or a device, gets the model zoo's form.
    return _KINDS.get(path.suffix.lower(), FullDocument)
