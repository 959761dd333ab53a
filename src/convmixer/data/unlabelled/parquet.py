"""Images in Parquet files: a column of encoded images, or of their paths and addresses."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.image_file import read_image_file
from convmixer.data.limits import BadImage
from convmixer.data.paths import Paths
from convmixer.data.source import Source
from convmixer.data.storage import is_remote, open_file
from convmixer.data.unlabelled.lists import chosen_column
from convmixer.data.unlabelled.located import LocatedFiles
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.packages import needed_for

_KEPT = 2  # row groups in memory: threads that read ahead are in the next one


def open_parquet(locations: Sequence[str], column: str | None = None) -> Source:
    """The images of Parquet files, in their order; `column` as `lists.chosen_column` has it.

    Encoded images are bytes, or a struct with `bytes` as Hugging Face `datasets` writes it. Raises UserError where
    pyarrow is not installed, or a file is none of Parquet.
    """
    with needed_for("a Parquet file"):
        import pyarrow.parquet as parquet
        import pyarrow.types as types
    try:
        files = [
            parquet.ParquetFile(open_file(location) if is_remote(location) else location) for location in locations
        ]
        schema = files[0].schema_arrow
        name = chosen_column(schema.names, column, locations[0])
        kind = schema.field(name).type
        if types.is_string(kind) or types.is_large_string(kind):
            entries = [entry or "" for file in files for entry in file.read(columns=[name]).column(0).to_pylist()]
            return LocatedFiles(Paths.of(entries))
        is_struct = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not is_struct and not types.is_binary(kind) and not types.is_large_binary(kind):
            raise UserError(f"{locations[0]}: its column {name} is {kind}, neither images nor their addresses")
        return ParquetImages(locations, files, name)
    except UserError:
        raise
    except Exception as error:  # of pyarrow and of the file systems below it
        raise UserError(f"{locations[0]}: cannot be read: {first_line(error)}", exit_code=RUN_FAILED) from None


class ParquetImages:
    """Encoded images in row groups, of which the last ones are in memory. Threads share it."""

    def __init__(self, locations: Sequence[str], files: Sequence[Any], column: str) -> None:
        self._locations, self._files, self._column = list(locations), list(files), column
        groups = [
            (number, group, file.metadata.row_group(group).num_rows)
            for number, file in enumerate(files)
            for group in range(file.metadata.num_row_groups)
        ]
        self._groups = [(number, group) for number, group, _ in groups]
        self._starts = [0, *accumulate(rows for _, _, rows in groups)]
        self._files_at = [0, *accumulate(file.metadata.num_rows for file in files)]
        self._lock, self._kept = threading.Lock(), OrderedDict[int, Any]()
        self.labels, self.classes, self.ignored = np.full(self._starts[-1], -1), ClassMap(()), Counter[str]()

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, index: int) -> str:
        """The file, and the number of the row in it."""
        number = bisect_right(self._files_at, index) - 1
        return f"{self._locations[number]}/{index - self._files_at[number]}"

    def read(self, index: int) -> bytes:
        """The bytes of an image file. Raises BadImage for a row without one."""
        place = bisect_right(self._starts, index) - 1
        value = self._column_of(place)[index - self._starts[place]].as_py()
        if isinstance(value, dict):
            path = value.get("path")
            if value.get("bytes") is None and path and not is_remote(path):
                return read_image_file(path)
            value = value.get("bytes")
        if value is None:
            raise BadImage("no image in this row")
        encoded: bytes = value
        return encoded

    def _column_of(self, place: int) -> Any:
        with self._lock:
            if place not in self._kept:
                number, group = self._groups[place]
                try:
                    self._kept[place] = self._files[number].read_row_group(group, columns=[self._column]).column(0)
                except Exception as error:  # of pyarrow and of the file systems below it
                    raise BadImage(first_line(error)) from None
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(place)
            return self._kept[place]
