"""The one prediction loop: images through a runtime, answers in the order of the images; NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from convmixer.backends.inside import Inside
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

    `path`: that of the file, or a name such as `image 3`. `unsure`: the probability is below the threshold that was
    asked for. `embedding`: float32 [dim], the feature vector before the head, where it was asked for.
    """

    path: str
    topk: tuple[ClassProbability, ...] = ()
    error: str | None = None
    unsure: bool = False
    embedding: np.ndarray | None = field(default=None, compare=False, repr=False)

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
    threshold: float = 0.0,
    inside: Inside | None = None,
    indices: np.ndarray | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_crops: Callable[[np.ndarray, Sequence[Prediction]], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """A prediction per image, or per one of `indices` (ascending), in their order, as the batches are answered.

    `ahead` batches are decoded before. `inside`, that of the runtime's network: the predictions have embeddings.
    `on_crops` gets the crops uint8 [n, size, size, channels] of a batch and their predictions, without those that have
    an error.
    """
    batches = read_batches(
        images, preprocessing, batch_size, indices=indices, threads=threads, ahead=ahead, max_pixels=max_pixels
    )
    for batch in batches:
        answers = {index: Prediction(images.name(index), error=reason) for index, reason in batch.bad}
        if len(batch.indices):
            if inside is None:
                features, logits = None, runtime.logits(batch.images)
            else:
                features, logits = inside.features(batch.images)
            names = [images.name(index) for index in batch.indices.tolist()]
            found = answered(logits, names, classes, topk, threshold, features)
            answers |= dict(zip(batch.indices.tolist(), found, strict=True))
            if on_crops is not None:
                good = [place for place, each in enumerate(found) if each.error is None]
                on_crops(batch.images[good], [found[place] for place in good])
        if on_batch is not None:
            on_batch(len(answers))
        yield from (answers[index] for index in sorted(answers))


def answered(
    logits: np.ndarray,
    names: Sequence[str],
    classes: ClassMap | None,
    topk: int,
    threshold: float = 0.0,
    features: Sequence[np.ndarray | None] | np.ndarray | None = None,
) -> list[Prediction]:
    """Predictions of logits float [N, classes] for the images called `names`; `features`: their embeddings [N, dim]."""

    def candidate(index: int, row: np.ndarray) -> ClassProbability:
        name = str(index) if classes is None else readable(classes.names[index])
        return ClassProbability(index, name, float(row[index]))

    probabilities = softmax(logits)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :topk].tolist()
    found = []
    for place, (name, row, best) in enumerate(zip(names, probabilities, order, strict=True)):
        if not np.isfinite(row).all():
            found.append(Prediction(name, error="the model answers with what is no number"))
            continue
        embedding = None if features is None else features[place]
        unsure = bool(row[best[0]] < threshold)
        found.append(
            Prediction(name, tuple(candidate(label, row) for label in best), unsure=unsure, embedding=embedding)
        )
    return found
