"""TensorBoard's event file, written in the calling thread, so that a disk that refuses is heard of."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from convmixer.runs.durable import AppendedFile

VERSION = "brain.Event:2"


class EventFile:
    """Events of one process in `folder`. TensorBoard hides older ones from `purge_step` on. All raise OSError."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(folder / name)
        self._write(file_version=VERSION)
        if purge_step is not None:
            self._write(step=purge_step, file_version=VERSION)
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """A point of each named curve."""
        self._write(*(summary.scalar(name, value) for name, value in values.items()), step=step)

    def picture(self, name: str, image: np.ndarray) -> None:
        """`image`: uint8 [H, W, 3]."""
        self._write(summary.image(name, image, dataformats="HWC"))

    def _write(self, *summaries: Any, **fields: Any) -> None:
        """Events with the same fields, one for each summary or one without, in TensorFlow's record format."""
        records = []
        for part in summaries or (None,):
            event = Event(wall_time=time.time(), summary=part, **fields).SerializeToString()
            length = struct.pack("<Q", len(event))
            records += [length, _checksum(length), event, _checksum(event)]
        self._file.append(b"".join(records))


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))
