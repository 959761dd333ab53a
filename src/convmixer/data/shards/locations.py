"""From what a user writes to the shards that it means: a folder of *.tar, `train-{000000..000099}.tar`, or a glob."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from convmixer.data.source import TRAIN_NAMES, names_of_split
from convmixer.data.storage import base_name, is_remote, joined, matching, names_in_folder, parent
from convmixer.errors import UserError

SUFFIX = ".tar"
MAX_SHARDS = 1_000_000

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_GLOB = re.compile(r"[*\[]|\?(?!.*=)")  # behind a question mark an address has its query, as ?token=...


def names_shards(location: str) -> bool:
    """True for a pattern of tar files, or the name of one; behind an address may be a query."""
    path = location.partition("?")[0] if is_remote(location) else location
    return path.lower().endswith(SUFFIX)


def find_shards(data_url: str | None, split_dir: str) -> list[str]:
    """Locations of the split's shards, in order; empty where there are none.

    `split_dir` below `data_url` is a folder of them or a pattern; or else `data_url` is a folder of the shards of all
    splits, with the split's name as a word of theirs, as `train-000000.tar`. A usual name of a split stands for the
    others: `val` for `validation`.
    """
    if names_shards(split_dir):
        return expanded(joined(data_url, split_dir))
    names = names_of_split(split_dir, train=split_dir in TRAIN_NAMES)
    return next(filter(None, (_find(data_url, name) for name in names)), [])


def _find(data_url: str | None, split_dir: str) -> list[str]:
    place = joined(data_url, split_dir)
    found = [f"{place.rstrip('/')}/{name}" for name in _tars(place)]
    if found or data_url is None:
        return found
    folder, word = parent(joined(data_url, "x")), re.compile(rf"(^|[-_.]){re.escape(split_dir)}[-_.\d]")
    return [f"{folder}/{name}" for name in _tars(folder) if word.search(name)]


def expanded(pattern: str) -> list[str]:
    """`a-{00..02}.tar` as a-00.tar, a-01.tar, a-02.tar; a glob as what matches it, sorted."""
    found = list(itertools.islice(_without_braces(pattern), MAX_SHARDS + 1))
    if len(found) > MAX_SHARDS:
        raise UserError(f"{pattern}: stands for more than {MAX_SHARDS} shards")
    if any(_GLOB.search(base_name(each) if is_remote(each) else each) for each in found):
        found = [match for each in found for match in matching(each)]
    return list(dict.fromkeys(found))


def _without_braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    if words is not None:
        parts: Iterator[str] = iter(words.split(","))
    else:
        # As a shell has it: as many digits as the first number, where it begins with 0.
        width = len(first) if first.startswith("0") else 0
        step = 1 if int(last) >= int(first) else -1
        parts = (f"{number:0{width}d}" for number in range(int(first), int(last) + step, step))
    for part in parts:
        yield from _without_braces(pattern[: match.start()] + part + pattern[match.end() :])


def _tars(folder: str) -> list[str]:
    return [name for name in names_in_folder(folder) if names_shards(name) and not name.startswith(".")]
