"""The one evaluation loop: a split of labelled images through a runtime; exact over the split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from convmixer.backends.runtime import Runtime
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.metrics.score import Score

logger = logging.getLogger(__name__)


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

    `part` = (rank, processes): every process takes neighbours, which lie together in shards, so that each image counts
    once at any number of processes. `ahead`: batches decoded before they are needed. `on_batch` gets the number of
    images of each batch. Images that cannot be read are listed in the score's `bad` and count neither as right nor as
    wrong.
    """
    rank, processes = part
    score = Score()
    indices = np.array_split(np.arange(len(source)), processes)[rank]
    for batch in read_batches(
        source, preprocessing, batch_size, indices=indices, threads=threads, ahead=ahead, max_pixels=max_pixels
    ):
        score.bad.extend(batch.bad)
        if len(batch.indices):
            score.add(runtime.logits(batch.images), source.labels[batch.indices], batch.indices)
        if on_batch is not None:
            on_batch(len(batch.indices) + len(batch.bad))
    return score


def check_any_readable(score: Score, source: Source) -> None:
    """Raises UserError (exit 1) where no image could be read: means over none are no result."""
    if not score.count and score.bad:
        index, reason = min(score.bad)
        raise UserError(
            f"none of the {len(score.bad)} evaluation images can be read, the first {source.name(index)} ({reason}); "
            "mend or replace them",
            exit_code=RUN_FAILED,
        )


def name_unreadable(bad: Sequence[tuple[int, str]], score: Score, source: Source, max_named: int | None = None) -> None:
    """Name the images `bad` of a score, or the first `max_named` of them, and log how many are not in the score."""
    for index, reason in sorted(bad)[:max_named]:
        logger.warning(f"not evaluated: {source.name(index)}: {reason}")
    if max_named is not None and len(bad) > max_named:
        logger.warning(f"not evaluated: {len(bad) - max_named} more; convmixer check-data names all")
    if bad:
        logger.warning(
            f"{len(score.bad)} of {len(score.bad) + score.count} images could not be read and are not in the results"
        )
