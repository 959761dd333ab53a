"""The one prediction loop: images through a runtime, answers in the order of the images; NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from convmixer.backends.runtime import Runtime
from convmixer.data.classes import ClassMap
from convmixer.data.imagenet import readable
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.data.source import Source
from convmixer.metrics.score import softmax


@dataclass(frozen=True)
class ClassProbability:
    """A class by its index and its name (the index as text where the model names no classes), and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """Answer to one image: its `topk` classes, most likely first; or, in `error`, why there is none.

    `path`: that of the file, or a name such as `image 3`.
    """

    path: str
    topk: tuple[ClassProbability, ...] = ()
    error: str | None = None

    @property
    def index(self) -> int:
        """The most likely class. Raises ValueError where there is no answer, as `name` and `probability` do."""
        return self._best.index

    @property
    def name(self) -> str:
        """Name of the most likely class."""
        return self._best.name

    @property
    def probability(self) -> float:
        """Probability of the most likely class."""
        return self._best.probability

    @property
    def _best(self) -> ClassProbability:
        if not self.topk:
            raise ValueError(f"{self.path}: {self.error}")
        return self.topk[0]


def predict(
    runtime: Runtime,
    images: Source,
    preprocessing: Preprocessing,
    classes: ClassMap | None = None,
    *,
    batch_size: int,
    threads: int,
    ahead: int = 2,
    topk: int = 5,
    on_batch: Callable[[int], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """A prediction per image, in their order, as the batches are answered; `ahead` batches are decoded before."""

    def candidate(index: int, row: np.ndarray) -> ClassProbability:
        name = str(index) if classes is None else readable(classes.names[index])
        return ClassProbability(index, name, float(row[index]))

    for batch in read_batches(images, preprocessing, batch_size, threads=threads, ahead=ahead, max_pixels=max_pixels):
        answers = {index: Prediction(images.name(index), error=reason) for index, reason in batch.bad}
        if len(batch.indices):
            probabilities = softmax(runtime.logits(batch.images))
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :topk]
            for index, row, best in zip(batch.indices.tolist(), probabilities, order.tolist(), strict=True):
                path = images.name(index)
                if np.isfinite(row).all():
                    answers[index] = Prediction(path, tuple(candidate(label, row) for label in best))
                else:
                    answers[index] = Prediction(path, error="the model answers with what is no number")
        yield from (answers[index] for index in sorted(answers))
        if on_batch is not None:
            on_batch(len(answers))
