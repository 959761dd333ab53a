"""What `convmixer pack` writes beside its shards: `manifest.json` for all splits, `index.npz` in the folder of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from convmixer.data.retrying import Refused
from convmixer.data.shards.index_file import from_bytes
from convmixer.data.shards.samples import Samples
from convmixer.data.storage import base_name, is_remote, parent, read_whole
from convmixer.errors import RUN_FAILED, UserError

FILE = "manifest.json"
UNFINISHED = "manifest.partial.json"
INDEX = "index.npz"
FORMAT = 1

_MAX_MANIFEST = 1 << 28
_MAX_INDEX = 1 << 32


@dataclass(frozen=True)
class PackedSplit:
    """`location`: the folder of the split; `sizes`: bytes of each shard by its name, in order."""

    location: str
    classes: tuple[str, ...]
    sizes: dict[str, int]

    @property
    def shards(self) -> list[str]:
        return [f"{self.location}/{name}" for name in self.sizes]

    def samples(self) -> Samples | None:
        """Those of all shards, in order, as the file of the index has them; None where it is not there or damaged."""
        content = read_whole(f"{self.location}/{INDEX}", _MAX_INDEX)
        return None if content is None else from_bytes(content)


def read_packed(split_folder: str) -> PackedSplit | None:
    """What was packed into the folder of a split; None for a folder that `pack` has not made.

    Raises UserError where packing has not come to its end, and for a manifest of another version.
    """
    folder, name = parent(split_folder), base_name(split_folder)
    if is_remote(split_folder) and folder.endswith("/"):
        return None  # its parent would be http://, or the like
    content = _read(f"{folder}/{FILE}")
    if content is None:
        if _read(f"{folder}/{UNFINISHED}") is not None:
            raise UserError(
                f"{folder}: was not packed to the end; run the same convmixer pack again, which goes on",
                exit_code=RUN_FAILED,
            )
        return None
    try:
        record = json.loads(content)
        if not isinstance(record, dict) or "splits" not in record or "format" not in record:
            return None  # another program's
        if record["format"] != FORMAT:
            raise UserError(f"{folder}/{FILE}: is of version {record['format']}, this program reads {FORMAT}")
        split = record["splits"].get(name)
        return None if split is None else _split(split_folder, record["classes"], split)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{folder}/{FILE}: is damaged; pack the images again", exit_code=RUN_FAILED) from None


def _read(location: str) -> bytes | None:
    try:
        return read_whole(location, _MAX_MANIFEST)
    except Refused:  # as some servers say of files that are not there to those who may not list them
        return None


def _split(location: str, classes: Any, split: Any) -> PackedSplit:
    sizes = {str(shard["name"]): int(shard["bytes"]) for shard in split["shards"]}
    if any("/" in name for name in sizes):
        raise ValueError("a shard lies elsewhere")
    return PackedSplit(location, tuple(map(str, classes)), sizes)
