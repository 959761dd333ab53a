"""The images of a source, made ready for their shards by several processes, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np

from convmixer.data.limits import BadImage
from convmixer.data.source import Source
from convmixer.data.worker_pool import IMAGES_PER_TASK, WorkerKilled, results_in_order
from convmixer.errors import RUN_FAILED, UserError
from convmixer.packing.images import ImageSize, packed_image

# (extension, bytes), or why an image is left out.
Packed = tuple[str, bytes] | str


def packed_images(source: Source, indices: np.ndarray, size: ImageSize, workers: int) -> Iterator[Packed]:
    """What becomes of each of the images. `workers` 0: in this process.

    Raises UserError (exit 1) when a process is killed, as the system does when memory runs out.
    """
    tasks = [indices[first : first + IMAGES_PER_TASK] for first in range(0, len(indices), IMAGES_PER_TASK)]
    try:
        with closing(results_in_order(partial(_pack_all, source, size), tasks, workers)) as results:
            for _, found in results:
                yield from found
    except WorkerKilled:
        raise UserError(
            "a process that packs images was killed, perhaps for want of memory (-j takes fewer); run the same again, "
            "which goes on",
            exit_code=RUN_FAILED,
        ) from None


def _pack_all(source: Source, size: ImageSize, indices: np.ndarray) -> list[Packed]:
    found: list[Packed] = []
    for index in indices.tolist():
        try:
            found.append(packed_image(source, index, size))
        except BadImage as error:
            found.append(str(error))
    return found
