"""From the words of a command line to images: what each word means is decided here, for every command."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.folders import files_below, is_image, open_files
from convmixer.data.shards.index import index_of
from convmixer.data.shards.locations import expanded, names_shards
from convmixer.data.shards.source import ShardSource
from convmixer.data.source import Source
from convmixer.data.storage import about, base_name, files_at, is_remote, matching
from convmixer.data.unlabelled import lists
from convmixer.data.unlabelled.located import LocatedFiles, joined
from convmixer.data.unlabelled.parquet import open_parquet
from convmixer.errors import UserError

STDIN = "-"
_GLOB = re.compile(r"[*?\[]")


def open_images(words: Sequence[str], *, recursive: bool = False, column: str | None = None) -> Source:
    """The images that the words stand for, one word's after another's.

    A word is an image, a folder (`recursive`: with what lies deeper), a pattern, a list (.txt, .csv, .tsv, .jsonl), a
    Parquet file, a tar file or a pattern of these, on a disk or at an address that fsspec knows, or `-`: stdin, an
    image or a list. `column`: of tables. Raises UserError for a word that stands for nothing.
    """
    if not words:
        raise UserError("DATA: an image or a folder of images is needed")
    if list(words).count(STDIN) > 1:
        raise UserError("DATA: - is stdin, which can be read once")
    return joined([_open(word, recursive, column) for word in words])


def _open(word: str, recursive: bool, column: str | None) -> Source:
    if word == STDIN:
        return lists.open_stdin()
    if is_remote(word):
        return _open_remote(word, recursive, column)
    if os.path.isdir(word):
        return _open_folder(word, recursive, column)
    if os.path.exists(word):
        return _open_file(word, column)
    if names_shards(word) and (shards := expanded(word)) and shards != [word]:
        return _open_shards(shards)
    if not _GLOB.search(word):
        raise UserError(f"there is no image or folder {word}")
    found = sorted(glob.glob(word, recursive=True))
    if not found:
        raise UserError(f"there is nothing that {word} matches")
    if all(map(is_image, found)):
        return LocatedFiles(found)
    others = [each for each in found if os.path.isdir(each) or _is_container(each)]
    images = [each for each in found if is_image(each)]
    if not others and not images:
        raise UserError(f"{word}: none of the {len(found)} files that it matches is an image")
    parts: list[Source] = [LocatedFiles(images)] if images else []
    return joined(parts + [_open(each, recursive, column) for each in others])


def _open_file(path: str, column: str | None) -> Source:
    lower = path.lower()
    if names_shards(path):
        return _open_shards([path])
    if lower.endswith(lists.SUFFIXES):
        return lists.open_list(path, column)
    if lower.endswith(".parquet"):
        return open_parquet([path], column)
    return open_files(path)


def _is_container(path: str) -> bool:
    return names_shards(path) or path.lower().endswith((*lists.SUFFIXES, ".parquet"))


def _open_folder(folder: str, recursive: bool, column: str | None) -> Source:
    """Its images; where it has none, what lies in its tar or Parquet files."""
    try:
        return open_files(folder, recursive=recursive)
    except UserError:
        found = list(files_below(folder)) if recursive else sorted(entry.path for entry in os.scandir(folder))
        if shards := [path for path in found if names_shards(path)]:
            return _open_shards(shards)
        if tables := [path for path in found if path.lower().endswith(".parquet")]:
            return open_parquet(tables, column)
        raise


def _open_remote(address: str, recursive: bool, column: str | None) -> Source:
    path = address.partition("?")[0]
    if names_shards(address):
        return _open_shards(expanded(address))
    if path.lower().endswith(lists.SUFFIXES):
        return lists.open_list(address, column)
    if _GLOB.search(base_name(path)):
        found = matching(address)
        if not found:
            raise UserError(f"there is nothing that {address} matches")
    elif path.endswith("/"):
        found = files_at(address, recursive)
    elif is_image(path) or about(address) is not None:
        found = [address]
    else:
        found = files_at(address, recursive)
    if tables := [each for each in found if each.partition("?")[0].lower().endswith(".parquet")]:
        return open_parquet(tables, column)
    if shards := [each for each in found if names_shards(each)]:
        return _open_shards(shards)
    if found == [address]:
        return LocatedFiles(found)
    images = [each for each in found if is_image(each)]
    if not images:
        raise UserError(f"{address}: holds no images" + ("" if recursive else "; --recursive looks below"))
    return LocatedFiles(images, ignored={"no image": len(found) - len(images)} if len(found) > len(images) else None)


def _open_shards(shards: Sequence[str]) -> Source:
    if not shards:
        raise UserError("DATA: the pattern matches no tar files")
    index = index_of(list(shards), None, labelled=False)
    if not len(index):
        raise UserError(f"{shards[0]}: holds no images" + (f", nor do {len(shards) - 1} more" if shards[1:] else ""))
    return ShardSource(index, np.full(len(index), -1), ClassMap(()), index.samples.ignored)
