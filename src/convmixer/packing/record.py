"""What has been packed so far: `manifest.partial.json`, written anew behind each shard, which becomes the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.data.shards.manifest import FILE, FORMAT, INDEX, UNFINISHED
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.runs.durable import write_file

LOCK = ".pack.lock"
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def fingerprint(source: Source) -> str:
    """SHA-256 over the labels and the names of the images, but for the folder of all: the set may be moved."""
    digest = hashlib.sha256(np.ascontiguousarray(source.labels).tobytes())
    # In names that are sorted or of one place the first and the last share what all do.
    folder = os.path.commonpath([source.name(0), source.name(len(source) - 1)])
    for index in range(len(source)):
        digest.update(source.name(index).removeprefix(folder).encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


@dataclass
class Record:
    """The content of the manifest. `identity`: classes, options and sources, the same in every run that goes on.

    `splits`: for each `shards` as `ShardWriter.finish` describes them, each with `next`, the place in the order of the
    split that the next shard begins at, and `bad`, the images left out before that, by name and reason.
    """

    out: Path
    identity: dict[str, Any]
    splits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def bad(self) -> list[tuple[str, str]]:
        return [(name, why) for shards in self.splits.values() for shard in shards for name, why in shard["bad"]]

    def save(self) -> None:
        """Raises OSError where the disk refuses."""
        write_file(self.out / UNFINISHED, self._content())

    def finish(self) -> None:
        """The manifest is there; what is left of the work is not."""
        write_file(self.out / FILE, self._content())
        for name in (UNFINISHED, LOCK):
            with contextlib.suppress(OSError):
                (self.out / name).unlink()

    def _content(self) -> bytes:
        splits = {
            name: {"images": sum(shard["images"] for shard in shards), "shards": shards}
            for name, shards in self.splits.items()
        }
        return (json.dumps({"format": FORMAT, **self.identity, "splits": splits}, indent=1) + "\n").encode()


def begun(out: Path, identity: dict[str, Any]) -> Record:
    """The record to go on with, also of what was finished; an empty one for an empty or new folder.

    Raises UserError where the folder holds anything else.
    """
    names = set(os.listdir(out)) if out.is_dir() else set()
    file = FILE if FILE in names else UNFINISHED
    if file not in names:
        others = sorted(name for name in names if name != LOCK and not re.fullmatch(r"\..*\.tmp", name))
        if others:
            raise UserError(f"OUT: {out} is not empty ({others[0]}); name a new folder")
        return Record(out, identity)
    try:
        content = json.loads((out / file).read_bytes())
        splits = {str(name): _shards(split["shards"]) for name, split in content["splits"].items()}
    except _DAMAGE:
        raise UserError(f"OUT: {out / file} is damaged; name a new folder", exit_code=RUN_FAILED) from None
    wanted = {"format": FORMAT, **json.loads(json.dumps(identity))}
    for key in wanted.keys() | (content.keys() - {"splits"}):
        if content.get(key) != wanted.get(key):
            raise UserError(
                f"OUT: {out} holds what was packed with other {key}: {_short(content.get(key))}, now "
                f"{_short(wanted.get(key))}\nname a new folder, or give the same DATA and options to go on"
            )
    return Record(out, identity, splits)


def keep_whole_shards(record: Record, split: str) -> None:
    """Of the shards that are recorded keep those before the first that is not as it was written; delete the others."""
    folder, kept = record.out / split, []
    for number, shard in enumerate(record.splits.get(split, [])):
        path = folder / shard_name(split, number)
        if shard["name"] != path.name or _sha256(path) != shard["sha256"]:
            break
        kept.append(shard)
    record.splits[split] = kept
    names = {shard["name"] for shard in kept}
    ours = re.compile(rf"{split}-\d{{6,}}\.tar|\.{split}-\d{{6,}}\.tar\.tmp|\.?{re.escape(INDEX)}(\.\d+\.tmp)?")
    for path in folder.iterdir():
        if path.name not in names and ours.fullmatch(path.name):
            path.unlink()


def _shards(content: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": str(shard["name"]),
            "images": int(shard["images"]),
            "bytes": int(shard["bytes"]),
            "sha256": str(shard["sha256"]),
            "next": int(shard["next"]),
            "bad": [[str(name), str(why)] for name, why in shard["bad"]],
        }
        for shard in content
    ]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
