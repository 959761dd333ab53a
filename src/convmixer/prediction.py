"""The one prediction loop: image files through a runtime, answers in the order of the files; NumPy."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from convmixer.backends.runtime import Runtime
from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.imagenet import readable
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.errors import RUN_FAILED, UserError
from convmixer.metrics import softmax
from convmixer.terminal.printable import printable


@dataclass(frozen=True)
class Prediction:
    """Answer to one file: the `top` classes with their probabilities, most likely first; or why there is none."""

    path: str
    top: tuple[tuple[int, float], ...] = ()
    fault: str | None = None

    @property
    def label(self) -> int:
        """The most likely class."""
        return self.top[0][0]


def predict(
    runtime: Runtime,
    files: Files,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    threads: int,
    ahead: int = 2,
    topk: int = 5,
    on_batch: Callable[[int], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """A prediction for each file, in their order, as the batches are answered; `ahead` batches are decoded before."""
    for batch in read_batches(files, preprocessing, batch_size, threads=threads, ahead=ahead, max_pixels=max_pixels):
        answers = {index: Prediction(files.name(index), fault=reason) for index, reason in batch.bad}
        if len(batch.indices):
            probabilities = softmax(runtime.logits(batch.images))
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :topk]
            for index, row, best in zip(batch.indices.tolist(), probabilities, order.tolist(), strict=True):
                name = files.name(index)
                if np.isfinite(row).all():
                    answers[index] = Prediction(name, tuple((label, float(row[label])) for label in best))
                else:
                    answers[index] = Prediction(name, fault="the model answers with what is no number")
        yield from (answers[index] for index in sorted(answers))
        if on_batch is not None:
            on_batch(len(answers))


def line_of(prediction: Prediction, classes: ClassMap | None, *, full: bool) -> str:
    """`PATH (class: 293)`, or with `full` the names and probabilities of the top classes."""
    if not full:
        return f"{printable(prediction.path)} (class: {prediction.label})"
    answers = ", ".join(f"{printable(_name(label, classes))} {share:.4f}" for label, share in prediction.top)
    return f"{printable(prediction.path)} ({answers})"


class AnswerFile:
    """JSON file of a path -> class, or with `full` of a path -> class, name, top-k, written answer by answer.

    It is a whole document after every answer, so that whatever ends the process, even SIGKILL or a full disk, leaves
    all answers until then; a pipe or a device gets its end with `close`. Raises UserError (exit 1) where the file
    cannot be written.
    """

    def __init__(self, path: Path, classes: ClassMap | None, *, full: bool) -> None:
        self.path, self.count = path, 0
        self._classes, self._full = classes, full
        self._position = 0  # where the next answer goes: the end of the last one
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self.is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            self._put("{", "}\n")
        except OSError as error:
            raise self._fault(error) from None

    def add(self, prediction: Prediction) -> None:
        """Write an answer; its image could be read."""
        answer = _record(prediction, self._classes) if self._full else prediction.label
        text = json.dumps({prediction.path: answer}, indent=1)[1:-2]  # without the braces
        try:
            self._put("," + text if self.count else text, "\n}\n")
        except OSError as error:
            raise self._fault(error) from None
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
            raise self._fault(error) from None

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
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

    def _fault(self, error: OSError) -> UserError:
        kept = f"; it holds the {self.count} answers until then" if self.count else ""
        return UserError(f"{self.path}: cannot be written: {error.strerror}{kept}", exit_code=RUN_FAILED)


def _record(prediction: Prediction, classes: ClassMap | None) -> dict[str, Any]:
    top = [{"class": label, "name": _name(label, classes), "probability": share} for label, share in prediction.top]
    return {"class": prediction.label, "name": _name(prediction.label, classes), "top": top}


def _name(label: int, classes: ClassMap | None) -> str:
    return str(label) if classes is None else readable(classes.names[label])
