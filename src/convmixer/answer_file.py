"""Predictions as lines and as a JSON file, in the forms of the model zoo's program."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from convmixer.errors import RUN_FAILED, UserError
from convmixer.prediction import Prediction
from convmixer.printable import printable


def line_of(prediction: Prediction, *, full: bool) -> str:
    """`PATH (class: 293)`, or with `full` the names and probabilities of the top classes."""
    if not full:
        return f"{printable(prediction.path)} (class: {prediction.index})"
    answers = ", ".join(f"{printable(each.name)} {each.probability:.4f}" for each in prediction.topk)
    return f"{printable(prediction.path)} ({answers})"


class AnswerFile:
    """JSON file of a path -> class, or with `full` of a path -> class, name, top-k, written answer by answer.

    It is a whole document after every answer, so that whatever ends the process, even SIGKILL or a full disk, leaves
    all answers until then; a pipe or a device gets its end with `close`. Raises UserError (exit 1) where the file
    cannot be written.
    """

    def __init__(self, path: Path, *, full: bool) -> None:
        self.path, self.count, self._full = path, 0, full
        self._position = 0  # where the next answer goes: the end of the last one
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self.is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            self._put("{", "}\n")
        except OSError as error:
            raise self._error(error) from None

    def add(self, prediction: Prediction) -> None:
        """Write an answer; its image could be read."""
        answer = _record(prediction) if self._full else prediction.index
        text = json.dumps({prediction.path: answer}, indent=1)[1:-2]  # without the braces
        try:
            self._put("," + text if self.count else text, "\n}\n")
        except OSError as error:
            raise self._error(error) from None
        self.count += 1

    def close(self) -> None:
        """Have it all on the disk."""
        try:
            if self.is_file:
                os.fsync(self._descriptor)
            else:
                self._write(b"\n}\n" if self.count else b"}\n")
            os.close(self._descriptor)
        except OSError as error:
            raise self._error(error) from None

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if error_type is None:
            self.close()
        else:
            with suppress(UserError):  # what ends the work is what the user should read
                self.close()

    def _put(self, text: str, end: str) -> None:
        """The text in the place of the end of the document, and the end behind it, in one write."""
        if not self.is_file:
            self._write(text.encode())
            return
        before = b"\n}\n" if self.count else b"}\n"
        try:
            self._write((text + end).encode(), self._position)
        except OSError:
            if self._position > 0:  # part of the text may stand where the end stood
                with suppress(OSError):
                    os.pwrite(self._descriptor, before, self._position)
                    os.ftruncate(self._descriptor, self._position + len(before))
            raise
        self._position += len(text)

    def _write(self, content: bytes, position: int | None = None) -> None:
        while content:
            if position is None:
                done = os.write(self._descriptor, content)
            else:
                done = os.pwrite(self._descriptor, content, position)
                position += done
            content = content[done:]

    def _error(self, error: OSError) -> UserError:
        kept = f"; it holds the {self.count} answers until then" if self.count else ""
        return UserError(f"{self.path}: cannot be written: {error.strerror}{kept}", exit_code=RUN_FAILED)


def _record(prediction: Prediction) -> dict[str, Any]:
    top = [{"class": each.index, "name": each.name, "probability": each.probability} for each in prediction.topk]
    return {"class": prediction.index, "name": prediction.name, "top": top}
