"""The bytes of an image file, by the one guard that every reader reads through: no file may hang or end a job."""

from __future__ import annotations

import errno
import os
import stat

from convmixer.data.formats.signatures import HEAD, detect_format, why_not_read
from convmixer.data.limits import MAX_BYTES, BadImage

# A network file system that lost its server's answer, or whose file was replaced, often has it the next time.
_PASSING = (errno.EIO, errno.ESTALE)
_SMALL = 1 << 20  # bytes that are read whatever they are


def read_image_file(path: str) -> bytes:
    """The file's bytes. Raises BadImage for what cannot be read, and for what could not be read to an end."""
    for is_last in (False, True):
        try:
            return _read(path)
        except OSError as error:
            if is_last or error.errno not in _PASSING:
                raise BadImage(error.strerror or "cannot be read") from error
    raise AssertionError("the last attempt returns or raises")


def _read(path: str) -> bytes:
    about = os.stat(path)
    # To open a pipe would wait for its other end for ever, and a device may do anything.
    if not stat.S_ISREG(about.st_mode):
        raise BadImage("not a regular file")
    if about.st_size > MAX_BYTES:
        raise BadImage(f"larger than {MAX_BYTES >> 20} MiB")
    with open(path, "rb", buffering=0) as file:  # a buffer would be joined with the rest: twice the file in memory
        if about.st_size > _SMALL:
            head = file.read(HEAD)
            if not detect_format(head)[0]:
                raise BadImage(why_not_read(head))
            file.seek(0)
        return file.readall()
