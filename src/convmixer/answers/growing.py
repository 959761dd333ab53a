"""A text file that grows answer by answer, and is whole after each."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from convmixer.errors import RUN_FAILED, UserError
from convmixer.prediction import Prediction


class GrowingFile:
    """Whatever ends the process, even SIGKILL or a full disk, leaves all answers until then, in a whole document; a
    pipe or a device gets the document's end with `close`. Raises UserError (exit 1) where the file cannot be written.

    `begin` and `end`: what stands around the answers of a document; `added` gives what is put behind those before.
    """

    begin, end = "", ""
    takes_embeddings = False
    takes_errors = True
    begins_with: tuple[bytes, ...] = ()  # by which an earlier file of the kind is known

    def __init__(self, path: Path, topk: int = 5) -> None:
        self.path, self.count, self.topk = path, 0, topk
        self._position = 0  # where the next answer goes: the end of the last one
        self._standing = b""  # what stands there
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self.is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            self._put(self.first())
        except OSError as error:
            raise self._error(error) from None

    def first(self) -> str:
        """What stands before the answers."""
        return self.begin

    def added(self, prediction: Prediction) -> str:
        """The text of an answer, with what stands between it and the one before."""
        raise NotImplementedError

    def add(self, prediction: Prediction) -> None:
        """Write an answer."""
        try:
            self._put(self.added(prediction))
        except OSError as error:
            raise self._error(error) from None
        self.count += 1

    def close(self) -> None:
        """Have it all on the disk."""
        try:
            if self.is_file:
                os.fsync(self._descriptor)
            else:
                self._write(self._closing())
            os.close(self._descriptor)
        except OSError as error:
            raise self._error(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if error_type is None:
            self.close()
        else:
            with suppress(UserError):  # what ends the work is what the user should read
                self.close()

    def _closing(self) -> bytes:
        return self.end.encode()

    def _put(self, text: str) -> None:
        """The text in the place of the end of the document, and the end behind it, in one write."""
        if not self.is_file:
            self._write(text.encode())
            return
        end = self._closing()
        try:
            self._write(text.encode() + end, self._position)
        except OSError:
            if self._position > 0:  # part of the text may stand where the end stood
                with suppress(OSError):
                    os.pwrite(self._descriptor, self._standing, self._position)
                    os.ftruncate(self._descriptor, self._position + len(self._standing))
            raise
        self._position += len(text.encode())
        self._standing = end

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
