"""The MindSpore runtime: a MINDIR file, with what stands beside it, in MindSpore itself; no torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.backends.model_file import Chooser, ModelFile
from convmixer.backends.padding import arrays_in_batches
from convmixer.backends.probabilities import Undo, random_image, undo_for
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.metadata import ModelMetadata, decode_metadata
from convmixer.packages import needed_for

SUFFIX = ".mindir"


def import_mindspore() -> Any:
    """The module mindspore. Raises UserError where it is missing or cannot be imported."""
    # Below an error MindSpore logs what concerns its developers; GLOG_v=1 shows it.
    os.environ.setdefault("GLOG_v", "3")
    with needed_for("a MINDIR or AIR file"):
        return importlib.import_module("mindspore")


_DAMAGED = "{path}: a truncated or damaged file, or no MINDIR; export it again"


def side_file(path: Path) -> Path:
    """Where the record of a MINDIR or AIR file stands, which has no place for it inside: `<name>.mindir.json`."""
    return path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class MindSporeRuntime:
    """Runs a loaded graph, float32 [N, channels, size, size] -> logits; `batch` is its fixed N, None for any.

    `undo`: makes logits of the answers of a file that ends in a softmax.
    """

    graph: Callable[[Any], Any]
    preprocessing: Preprocessing
    batch: int | None
    undo: Undo | None = None

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        inputs = self.preprocessing.normalise(images)
        answers = arrays_in_batches(self._run, inputs, self.batch or max(len(inputs), 1)).astype(np.float32, copy=False)
        return answers if self.undo is None else self.undo(answers)

    def _run(self, batch: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.graph(import_mindspore().Tensor(batch)).asnumpy()
        return out


def open_mindspore(path: str, choose: Chooser) -> ModelFile:
    """Open a MINDIR file of ours, with its record beside it, or another's; see `opening.open_model`.

    Raises UserError for a file that is missing, damaged, or no image classifier.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if file.suffix != SUFFIX:
        raise UserError(f"{file}: MindSpore loads files whose name ends in {SUFFIX} only; rename it")
    mindspore = import_mindspore()
    batch, channels, size, count = _shapes(file)
    record = _record(file)
    chosen = choose(record.preprocessing if record else None, channels, size)
    if size not in (None, chosen.size):
        raise UserError(f"{file}: takes images of {size} x {size} pixels, --image_size says {chosen.size}")
    classes = record.classes if record else None
    if classes is not None and len(classes) != count:
        raise UserError(f"{side_file(file)}: names {len(classes)} classes, but the model answers in {count}")
    try:
        graph = mindspore.nn.GraphCell(mindspore.load(str(file)))
    except RuntimeError:  # of a file that ends, or was changed, between two of its parts
        raise UserError(_DAMAGED.format(path=file)) from None
    runtime = MindSporeRuntime(graph, chosen, batch)
    if record is None:  # ours answer with logits
        runtime = replace(runtime, undo=undo_for(path, runtime.logits(random_image(chosen))))
    return ModelFile(runtime, chosen, classes, count, record.architecture if record else None)


def _shapes(path: Path) -> tuple[int | None, int, int | None, int]:
    """Batch, channels and size of the graph's only input, None where it takes any, and the number of its classes."""
    # Read here because MindSpore shows neither before it runs, and of a damaged file only in a log for developers.
    from google.protobuf.message import DecodeError
    from mindspore.train.mind_ir_pb2 import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise UserError(_DAMAGED.format(path=path)) from None
    inputs, outputs = ([list(part.tensor[0].dims) for part in side] for side in (model.graph.input, model.graph.output))
    is_classifier = [len(shape) for shape in inputs] == [4] and [len(shape) for shape in outputs] == [2]
    if not is_classifier or inputs[0][1] not in (1, 3) or inputs[0][2] != inputs[0][3] or outputs[0][1] < 1:
        raise UserError(
            f"{path}: takes {inputs} and gives {outputs}; "
            "one batch of square images [N, 1 or 3, size, size] and logits [N, classes] are run"
        )
    batch, channels, size, _ = inputs[0]
    return (batch if batch > 0 else None), channels, (size if size > 0 else None), outputs[0][1]


def _record(path: Path) -> ModelMetadata | None:
    side = side_file(path)
    if not side.is_file():
        return None
    try:
        return decode_metadata(side.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{side}: cannot be used: {error}") from None
