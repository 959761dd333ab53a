"""A model file applied to images without labels: predictions, feature vectors, and what the classes are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convmixer.config.resolved import Resolved
from convmixer.data.classes import ClassMap
from convmixer.data.imagenet import imagenet_classes
from convmixer.data.reader import read_batches
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.machine import workers
from convmixer.prediction import Prediction, predict
from convmixer.terminal.progress import Progress

if TYPE_CHECKING:
    from convmixer.backends.model_file import ModelFile

logger = logging.getLogger(__name__)


def predictions(
    resolved: Resolved[Any],
    model: ModelFile,
    images: Source,
    *,
    ahead: int = 2,
    indices: np.ndarray | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_crops: Callable[[np.ndarray, Sequence[Prediction]], None] | None = None,
    named: bool = True,
) -> Iterator[Prediction]:
    """A prediction per image, in their order, as `prediction.predict` has it.

    `named` False: classes without a name in the file keep their numbers. Raises UserError where embeddings are asked
    for and the file does not show them.
    """
    options = resolved.options
    return predict(
        model.runtime,
        images,
        model.preprocessing,
        names_of(model) if named else model.classes,
        batch_size=options.batch_size,
        threads=workers(options.num_parallel_workers),
        ahead=ahead,
        topk=options.topk,
        threshold=options.threshold,
        inside=model.inside() if options.embed else None,
        indices=indices,
        on_batch=on_batch,
        on_crops=on_crops,
        max_pixels=options.max_pixels,
    )


def features_of(
    resolved: Resolved[Any], model: ModelFile, images: Source, label: str = "look"
) -> tuple[np.ndarray, list[int], int]:
    """Feature vectors float32 [n, dim] of the images that can be read, their places, and how many cannot be read.

    Those are named. Raises UserError (exit 1) where none can be read, and for a file that does not show its inside.
    """
    options, inside = resolved.options, model.inside()
    vectors, places, bad = [], [], 0
    with Progress(len(images), label) as progress:
        for batch in read_batches(
            images,
            model.preprocessing,
            options.batch_size,
            threads=workers(options.num_parallel_workers),
            max_pixels=options.max_pixels,
        ):
            for index, reason in batch.bad:
                logger.warning(f"left out: {images.name(index)}: {reason}")
            bad += len(batch.bad)
            if len(batch.indices):
                vectors.append(inside.features(batch.images)[0])
                places += batch.indices.tolist()
            progress.add(len(batch.indices) + len(batch.bad))
    if not vectors:
        raise UserError("DATA: none of the images can be read", exit_code=RUN_FAILED)
    return np.concatenate(vectors), places, bad


def names_of(model: ModelFile) -> ClassMap | None:
    """The names of the classes: the file's, or ImageNet's for as many where it has none."""
    if model.classes is None and model.num_classes == len(imagenet_classes()):
        logger.info(f"the model names no classes; its {model.num_classes} are taken for ImageNet's")
        return imagenet_classes()
    return model.classes
