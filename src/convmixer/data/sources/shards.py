"""Tar shards in WebDataset's naming, on a disk or at any address that fsspec knows; those of `convmixer pack` too."""

from __future__ import annotations

from convmixer.data.classes import ClassMap
from convmixer.data.shards.source import ShardSource, has_shards, open_shards


def accepts(data_url: str, split_dir: str) -> bool:
    return has_shards(data_url, split_dir)


def open_source(data_url: str | None, split_dir: str, *, train: bool, classes: ClassMap | None) -> ShardSource:
    return open_shards(data_url, split_dir, "--train_dir" if train else "--val_dir", classes)
