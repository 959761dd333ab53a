"""`convmixer pack`: a data set as tar shards, which are read faster than its files and can be copied as a few."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from convmixer.config.command import Command
from convmixer.config.pack import PackOptions
from convmixer.config.resolved import Resolved
from convmixer.data.classes import ClassMap
from convmixer.data.folders import ignored_line
from convmixer.data.source import Source
from convmixer.data.splits import Splits, check_splits, open_split
from convmixer.data.storage import is_remote
from convmixer.errors import RUN_FAILED, UserError
from convmixer.machine import usable_cores
from convmixer.packing.images import ImageSize
from convmixer.packing.pack import pack

logger = logging.getLogger(__name__)

COMMAND = Command(
    "pack",
    "Write a data set as tar shards into the folder OUT. A run that was stopped goes on where the same is run again. "
    "Exit code 1: images that cannot be read were left out. Nothing is written below DATA.",
    PackOptions,
    positional="data out",
)


def run(resolved: Resolved[PackOptions]) -> int:
    options = resolved.options
    if options.out is None:
        raise UserError("OUT: the folder of the shards is needed, as in convmixer pack DATA OUT")
    out = Path(options.out).absolute()
    _refuse_data(options, out)
    splits = _open(options)
    size = ImageSize(options.short_side, options.quality, options.max_pixels)
    workers = usable_cores() if options.num_parallel_workers is None else options.num_parallel_workers
    packed = pack(splits, out, size, shard_bytes=options.shard_mb << 20, seed=options.seed, workers=workers)
    for name, why in packed.bad:
        logger.warning(f"{name}: {why}; left out")
    images = " and ".join(
        f"{count} {'training' if name == 'train' else 'evaluation'}" for name, count in packed.images.items()
    )
    left_out = f"; {len(packed.bad)} could not be read and were left out" if packed.bad else ""
    shards = "1 shard" if packed.shards == 1 else f"{packed.shards} shards"
    print(f"{out}: {images} images in {shards}, {packed.bytes / 1e6:,.1f} MB{left_out}")
    return RUN_FAILED if packed.bad else 0


def _open(options: PackOptions) -> dict[str, Source]:
    train_dir, val_dir = options.train_dir, options.val_dir
    if train_dir and val_dir:
        found = Splits(options.set, options.data, train_dir, val_dir, seed=options.seed).laid_out("DATA")
        if found.remark is not None:
            logger.info(found.remark)
        if found.val_dir is None:
            return _held_out(found)
        train_dir, val_dir = found.train_dir, found.val_dir
        check_splits(options.set, options.data, train_dir, val_dir)
    splits: dict[str, Source] = {}
    classes: ClassMap | None = None
    for name, split_dir in (("train", train_dir), ("val", val_dir)):
        if split_dir is None:
            continue
        source = open_split(options.set, options.data, split_dir, train=name == "train", classes=classes)
        if source.ignored:
            logger.info(ignored_line(source.ignored, f"the {name} images"))
        splits[name], classes = source, source.classes
    if not splits:
        raise UserError("--train_dir and --val_dir are both none: there is nothing to pack")
    return splits


def _held_out(splits: Splits) -> dict[str, Source]:
    whole = splits.open_train()
    held = splits.hold_out(whole)
    logger.info(f"{len(held.val)} of {len(whole)} images are held out for evaluation, as training does with this seed")
    return {"train": held.train, "val": held.val}


def _refuse_data(options: PackOptions, out: Path) -> None:
    """Raise UserError where the shards would lie within the data, or the data within them."""
    if options.data is None or is_remote(options.data):
        return
    real = Path(os.path.realpath(out))
    data = Path(os.path.realpath(options.data))
    folders = [data, *(Path(os.path.realpath(data / name)) for name in (options.train_dir, options.val_dir) if name)]
    for folder in folders:
        if real.is_relative_to(folder) or folder.is_relative_to(real):
            raise UserError(f"OUT: {out} and the data in {folder} may not lie within each other")
