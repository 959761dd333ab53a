"""TensorBoard's event file, written in the calling thread, so that a disk that refuses is heard of."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from convmixer.runs.durable import AppendedFile
from convmixer.training.logging.metric_logger import LoggedRun

VERSION = "brain.Event:2"


class Logger:
    """A file in the run's summary. Of a resumed run TensorBoard hides what older files have past its step."""

    _file: AppendedFile

    def open(self, run: LoggedRun) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(run.folder / name)
        self._append(file_version=VERSION)
        if run.resumed_at is not None:
            first = run.resumed_at + 1
            self._append(step=first, file_version=VERSION)
            self._append(step=first, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._append(*(summary.scalar(name, value) for name, value in values.items()), step=step)

    def picture(self, name: str, image: np.ndarray) -> None:
        self._append(summary.image(name, image, dataformats="HWC"))

    def close(self, *, failed: bool) -> None:
        pass  # nothing waits

    def _append(self, *summaries: Any, **fields: Any) -> None:
        """Events with the same fields, one for each summary or one without, in TensorFlow's record format."""
        records = []
        for part in summaries or (None,):
            event = Event(wall_time=time.time(), summary=part, **fields).SerializeToString()
            length = struct.pack("<Q", len(event))
            records += [length, _checksum(length), event, _checksum(event)]
        self._file.append(b"".join(records))


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))
