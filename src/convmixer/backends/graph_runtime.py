"""A graph of a file in an engine: files of ours with their record, and those of others without one; no torch.

A file of ours with the preprocessing in its graph is fed from the same crops as any other: a crop is laid into the
middle of an empty image of the size that the graph resizes to, so that its resize changes nothing and its own centre
crop is the very same pixels. Thus batches of images of any size can be evaluated, by the same loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from convmixer.backends.graph_input import InputForm
from convmixer.backends.model_file import Chooser, ModelFile
from convmixer.backends.padding import arrays_in_batches
from convmixer.backends.probabilities import Undo, undo_for
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import RUN_FAILED, UserError, first_line
from convmixer.metadata import ModelMetadata

logger = logging.getLogger(__name__)

# A batch as the file takes it -> its answers, whatever they are.
Engine = Callable[[np.ndarray], object]


@dataclass(frozen=True)
class GraphRuntime:
    """A file whose only input is a batch of images, in an engine; `form` and `metadata` are what the file says.

    A file of ours with its preprocessing in the graph takes whole images, uint8. `undo`: makes logits of the answers of
    a file that ends in a softmax or sigmoid. `num_classes`: None until it is known.
    """

    path: str
    engine: Engine
    form: InputForm
    metadata: ModelMetadata | None
    preprocessing: Preprocessing
    undo: Undo | None = None
    num_classes: int | None = None

    @property
    def embedded(self) -> bool:
        """Whether the graph resizes, crops and normalises itself."""
        return self.metadata is not None and self.metadata.embed_preprocess

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        inputs = self.inputs(images)
        answers = arrays_in_batches(self._run, inputs, self.form.batch or max(len(inputs), 1))
        return answers.astype(np.float32, copy=False) if self.undo is None else self.undo(answers)

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """What the file takes of uint8 [N, size, size, channels]."""
        return self._canvases(images) if self.embedded else self.form.batch_of(images, self.preprocessing)

    def _canvases(self, images: np.ndarray) -> np.ndarray:
        assert self.metadata is not None
        size, side = images.shape[1], self.metadata.known_preprocessing.resize_size
        first = round((side - size) / 2)
        out = np.zeros((len(images), side, side, images.shape[3]), np.uint8)
        out[:, first : first + size, first : first + size] = images
        return out

    def _run(self, batch: np.ndarray) -> np.ndarray:
        try:
            out = self.engine(batch)
        except MemoryError:
            raise
        except Exception as error:  # the engines have no base class of their errors
            raise UserError(f"{self.path}: does not run: {first_line(error)}", exit_code=RUN_FAILED) from None
        if isinstance(out, np.ndarray) and out.ndim > 2 and set(out.shape[2:]) == {1}:
            out = out.reshape(out.shape[:2])  # a map of one position
        if not isinstance(out, np.ndarray) or out.ndim != 2 or len(out) != len(batch) or out.dtype.kind != "f":
            form = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise UserError(f"{self.path}: answers {len(batch)} images with {form}, not with logits [images, classes]")
        if out.shape[1] != (self.num_classes or out.shape[1]):
            raise UserError(f"{self.path}: answers in {out.shape[1]} classes, and in {self.num_classes} before")
        return out

    def as_model(self, answers: np.ndarray, last_operator: str | None = None) -> ModelFile:
        """The file, opened, once an image got these `answers` [1, classes], before anything is undone.

        `last_operator`: the one that they come from, where that is known. Raises UserError where they do not fit the
        record.
        """
        classes = None if self.metadata is None else self.metadata.classes
        count = answers.shape[1]
        if count < 1:
            raise UserError(f"{self.path}: answers in {count} classes")
        if classes is not None and len(classes) != count:
            raise UserError(f"{self.path}: names {len(classes)} classes, but answers in {count}")
        runtime = replace(self, undo=undo_for(self.path, answers, last_operator), num_classes=count)
        if self.metadata is None:
            return ModelFile(runtime, self.preprocessing, classes, count)
        facts = self.metadata.extra
        return ModelFile(runtime, self.preprocessing, classes, count, self.metadata.architecture, facts=facts)


def chosen_preprocessing(path: str, form: InputForm, metadata: ModelMetadata | None, choose: Chooser) -> Preprocessing:
    """The preprocessing, as far as the file leaves a choice. Raises UserError for one that it cannot have."""
    record = None if metadata is None else metadata.preprocessing
    embedded = record if metadata is not None and metadata.embed_preprocess else None
    size = form.side if embedded is None else embedded.size
    chosen = choose(record, form.channels or (3 if record is None else record.channels), size)
    if size is not None and chosen.size != size:
        raise UserError(f"{path}: takes images of {size} x {size} pixels, --image_size says {chosen.size}")
    if not form.takes_pixels:
        return chosen
    given = (chosen.mean, chosen.std)
    if embedded is not None and given != (embedded.mean, embedded.std):
        raise UserError(f"{path}: normalises its images itself; --mean and --std cannot be changed")
    if embedded is None:
        if form.channels != 1 and given != (Preprocessing.mean, Preprocessing.std):
            raise UserError(f"{path}: takes uint8 pixels as they are; --mean and --std are for float input")
        logger.info(f"{path}: takes uint8 pixels, 0 to 255, as they are; normalising them is left to the file")
    return chosen
