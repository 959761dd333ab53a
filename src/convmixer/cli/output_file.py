"""Files that a command writes beside what it prints: checked before its work, written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.durable import write_file

logger = logging.getLogger(__name__)


def check_writable(name: str | None, option: str) -> Path | None:
    """The absolute path of a file that may be written, None where none is asked for. Raises UserError for others."""
    if name is None:
        return None
    path = Path(name).absolute()
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"{option}: {path} cannot be written; is {path.parent} a folder that you may write to?")
    return path


def write_output(path: Path, content: bytes | str, word: str) -> None:
    """Write a file, and log it behind a word. Raises UserError (exit 1) where the disk refuses."""
    encoded = content if isinstance(content, bytes) else content.encode()
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(encoded)  # nothing may take the place of a link, a device or a pipe
        else:
            write_file(path, encoded)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None
    logger.info(f"{word}: {path}")


def as_json(record: Any) -> str:
    """Plain values as such files have them."""
    return json.dumps(record, indent=1) + "\n"
