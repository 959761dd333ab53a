"""The real images that an exported model is calibrated and compared on: the user's, else the built-in digits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.config.resolved import Resolved
from convmixer.data.classes import ClassMap, composed
from convmixer.data.folders import ignored_line, open_files
from convmixer.data.holdout import record_beside, recorded_part
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.data.source import Source, seeded_subset
from convmixer.data.sources.digits import open_digits
from convmixer.data.splits import FOLDERS, open_split, source_of
from convmixer.errors import RUN_FAILED, UserError

logger = logging.getLogger(__name__)

BATCH = 8


def open_images(resolved: Resolved[Any], count: int, weights: Path, *, train: bool) -> Source:
    """`count` images, drawn by the seed, of the split for training or the one for evaluation.

    `--data_url` may also be a plain folder of images; of one that the run of the `weights` has split, the split counts.
    A recipe's folder that is not on this machine is passed over.
    """
    return seeded_subset(_open(resolved, weights, train), count, resolved.options.seed)


def _open(resolved: Resolved[Any], weights: Path, train: bool) -> Source:
    config = resolved.options
    split = config.train_dir if train else config.val_dir
    folder = None if config.data_url is None else Path(config.data_url)
    if folder is None or not (folder.exists() or resolved.is_explicit("data_url")):
        if config.set != "digits":
            logger.info(
                f"{'calibrated' if train else 'compared'} on the built-in digits; --data_url names images of your own"
            )
        return open_digits(train=train)
    if source_of(config.set, config.data_url, split) != FOLDERS:
        return open_split(config.set, config.data_url, split, train=train)
    if not folder.is_dir():
        raise UserError(f"--data_url: there is no folder {folder}")
    inner = folder / split
    # Of a split the labels are of no concern here, and so neither are its folders.
    files = open_files(inner if inner.is_dir() else folder, recursive=True)
    if files.ignored:
        logger.info(ignored_line(files.ignored, "the images"))
    record = record_beside(weights)
    return files if inner.is_dir() or record is None else recorded_part(files, config.data_url, record, train=train)


def crops(
    source: Source, preprocessing: Preprocessing, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[np.ndarray]:
    """Batches of crops, uint8 [N, size, size, channels]. Raises UserError where no image can be read."""
    return (images for images, _ in indexed_crops(source, preprocessing, threads, max_pixels))


def indexed_crops(
    source: Source, preprocessing: Preprocessing, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same, each batch with the numbers of its images, int64 [N]."""
    found = False
    for batch in read_batches(source, preprocessing, BATCH, threads=threads, max_pixels=max_pixels):
        for index, reason in batch.bad:
            logger.warning(f"left out: {source.name(index)}: {reason}")
        if len(batch.images):
            found = True
            yield batch.images, batch.indices
    if not found:
        raise UserError("--data_url: none of its images can be read", exit_code=RUN_FAILED)


def labels_in(source: Source, classes: ClassMap | None) -> np.ndarray | None:
    """The labels of all images in a model's classes, int64 [n], by the source's or the folders' names; or None.

    A model without names takes no labels: which number means what would be a guess.
    """
    if classes is None:
        return None
    if source.classes == classes:
        return source.labels
    numbers = {name: number for number, name in enumerate(classes.names)}
    found = [numbers.get(composed(Path(source.name(index)).parent.name), -1) for index in range(len(source))]
    return None if -1 in found else np.array(found)
