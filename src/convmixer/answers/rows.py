"""Answers one behind the other: JSON Lines, CSV, and Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from convmixer.answers.growing import GrowingFile
from convmixer.answers.record import record_of
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.packages import needed_for
from convmixer.prediction import Prediction

_ROWS = 1000  # of a row group in Parquet


class JsonLines(GrowingFile):
    """A record per line."""

    takes_embeddings = True
    begins_with = (b'{"path"',)

    def added(self, prediction: Prediction) -> str:
        return json.dumps(record_of(prediction)) + "\n"


class CsvRows(GrowingFile):
    """A row per image: the first classes side by side."""

    begins_with = (b"path,index,",)

    def first(self) -> str:
        more = [f"{name}_{place}" for place in range(2, self.topk + 1) for name in ("name", "probability")]
        return _csv_row(["path", "index", "name", "probability", "unsure", "error", *more])

    def added(self, prediction: Prediction) -> str:
        if prediction.error is not None:
            return _csv_row([prediction.path, "", "", "", "", prediction.error])
        best = prediction.topk[0]
        more = [value for each in prediction.topk[1:] for value in (each.name, each.probability)]
        unsure = "true" if prediction.unsure else ""
        return _csv_row([prediction.path, best.index, best.name, best.probability, unsure, "", *more])


def _csv_row(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class ParquetRows:
    """A row per image in a Parquet file, which is there, whole, when it is closed; a killed process leaves none."""

    takes_embeddings = takes_errors = True
    begins_with = (b"PAR1",)
    is_file = True

    def __init__(self, path: Path, topk: int = 5) -> None:
        self.path, self.count = path, 0
        self._records: list[dict[str, Any]] = []
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer = self._do(lambda: require_parquet().ParquetWriter(self._temporary, schema()))

    def add(self, prediction: Prediction) -> None:
        """Take an answer; the disk gets many at once."""
        self._records.append(record_of(prediction))
        self.count += 1
        if len(self._records) == _ROWS:
            self._flush()

    def close(self) -> None:
        """Have it all in its place."""
        self._flush()
        self._do(self._writer.close)
        self._do(lambda: os.replace(self._temporary, self.path))

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            if error_type is None:
                self.close()
            else:
                with suppress(UserError):  # what ends the work is what the user should read
                    self.close()
        finally:
            with suppress(OSError):
                self._temporary.unlink()

    def _flush(self) -> None:
        if self._records:
            rows, self._records = self._records, []
            self._do(lambda: self._writer.write_table(table_of(rows)))

    def _do(self, action: Any) -> Any:
        try:
            return action()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {first_line(error)}", exit_code=RUN_FAILED) from None


def require_parquet() -> Any:
    """pyarrow's module for Parquet. Raises UserError where it is not installed."""
    with needed_for("a Parquet file"):
        import pyarrow.parquet

    return pyarrow.parquet


def schema() -> Any:
    """Columns of the records, as Arrow has them."""
    import pyarrow as arrow

    candidate = arrow.struct([("index", arrow.int32()), ("name", arrow.string()), ("probability", arrow.float32())])
    return arrow.schema(
        [
            ("path", arrow.string()),
            ("index", arrow.int32()),
            ("name", arrow.string()),
            ("probability", arrow.float32()),
            ("topk", arrow.list_(candidate)),
            ("unsure", arrow.bool_()),
            ("embedding", arrow.list_(arrow.float32())),
            ("error", arrow.string()),
        ]
    )


def table_of(records: Sequence[dict[str, Any]]) -> Any:
    """Records as an Arrow table. What of a path is no UTF-8 is written as `printable` shows it."""
    require_parquet()
    import pyarrow as arrow

    rows = [{**each, "path": each["path"].encode("utf-8", "backslashreplace").decode()} for each in records]
    return arrow.Table.from_pylist(rows, schema=schema())


def as_parquet(records: Sequence[dict[str, Any]]) -> bytes:
    """A whole Parquet file of records."""
    sink = io.BytesIO()
    table = table_of(records)
    require_parquet().write_table(table, sink)
    return sink.getvalue()


def as_json_lines(records: Sequence[dict[str, Any]]) -> bytes:
    """The same in JSON Lines."""
    return "".join(json.dumps(each) + "\n" for each in records).encode()
