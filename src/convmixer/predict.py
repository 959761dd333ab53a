"""The one prediction loop: image files through a runtime, answers in the order of the files; NumPy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.data.classes import ClassMap
from convmixer.data.folders import Files
from convmixer.data.imagenet import readable
from convmixer.data.limits import MAX_PIXELS
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.errors import RUN_FAILED, UserError
from convmixer.metrics import softmax
from convmixer.printable import printable
from convmixer.runtime import Runtime


@dataclass(frozen=True)
class Prediction:
    """Answer to one file: the `top` classes with their probabilities, most likely first; or why there is none."""

    path: str
    top: tuple[tuple[int, float], ...] = ()
    fault: str | None = None

    @property
    def label(self) -> int:
        """The most likely class."""
        return self.top[0][0]


def predict(
    runtime: Runtime,
    files: Files,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    threads: int,
    ahead: int = 2,
    topk: int = 5,
    on_batch: Callable[[int], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """A prediction for each file, in their order, as the batches are answered; `ahead` batches are decoded before."""
    for batch in read_batches(files, preprocessing, batch_size, threads=threads, ahead=ahead, max_pixels=max_pixels):
        answers = {index: Prediction(files.name(index), fault=reason) for index, reason in batch.bad}
        if len(batch.indices):
            probabilities = softmax(runtime.logits(batch.images))
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :topk]
            for index, row, best in zip(batch.indices.tolist(), probabilities, order.tolist(), strict=True):
                name = files.name(index)
                if np.isfinite(row).all():
                    answers[index] = Prediction(name, tuple((label, float(row[label])) for label in best))
                else:
                    answers[index] = Prediction(name, fault="the model answers with what is no number")
        yield from (answers[index] for index in sorted(answers))
        if on_batch is not None:
            on_batch(len(answers))


def line_of(prediction: Prediction, classes: ClassMap | None, *, full: bool) -> str:
    """`PATH (class: 293)`, or with `full` the names and probabilities of the top classes."""
    if not full:
        return f"{printable(prediction.path)} (class: {prediction.label})"
    answers = ", ".join(f"{printable(_name(label, classes))} {share:.4f}" for label, share in prediction.top)
    return f"{printable(prediction.path)} ({answers})"


def write_predictions(path: Path, predictions: Sequence[Prediction], classes: ClassMap | None, *, full: bool) -> None:
    """JSON of a path -> class, or with `full` of a path -> class, name, top-k; whole or not at all.

    Raises UserError (exit 1) where the file cannot be written.
    """
    content = {p.path: _record(p, classes) if full else p.label for p in predictions if p.fault is None}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None


def _record(prediction: Prediction, classes: ClassMap | None) -> dict[str, Any]:
    top = [{"class": label, "name": _name(label, classes), "probability": share} for label, share in prediction.top]
    return {"class": prediction.label, "name": _name(prediction.label, classes), "top": top}


def _name(label: int, classes: ClassMap | None) -> str:
    return str(label) if classes is None else readable(classes.names[label])
