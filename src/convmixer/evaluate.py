"""The one evaluation loop: a split of labelled images through a runtime; exact over the split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convmixer.data.limits import MAX_PIXELS
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.data.sources import Source
from convmixer.metrics import Score
from convmixer.runtime import Runtime


def evaluate(
    runtime: Runtime,
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    threads: int,
    ahead: int = 2,
    part: tuple[int, int] = (0, 1),
    on_batch: Callable[[int], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Score:
    """Score of `runtime` on `source`.

    `part` = (rank, processes): every process takes each processes-th image, so that each image counts once at any
    number of processes. `ahead`: batches decoded before they are needed. `on_batch` is told the number of images of
    each batch. Images that cannot be read are listed in the score's `bad` and count neither as right nor as wrong.
    """
    rank, processes = part
    score = Score()
    indices = np.arange(rank, len(source), processes)
    for batch in read_batches(
        source, preprocessing, batch_size, indices=indices, threads=threads, ahead=ahead, max_pixels=max_pixels
    ):
        score.bad.extend(batch.bad)
        if len(batch.indices):
            score.add(runtime.logits(batch.images), source.labels[batch.indices])
        if on_batch is not None:
            on_batch(len(batch.indices) + len(batch.bad))
    return score
