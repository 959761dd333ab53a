"""What an opened model is, whatever engine stands behind it: its runtime, and what it knows of input and classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from convmixer.arch import Architecture
from convmixer.backends.inside import Inside
from convmixer.backends.runtime import Runtime
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError


class Chooser(Protocol):
    """Decides on the preprocessing, as `inputs.preprocessing_for` does."""

    def __call__(self, record: Preprocessing | None, channels: int, size: int | None = None) -> Preprocessing:
        """`record`: the file's, or None. `size`: the side of its input where that is fixed."""
        ...


@dataclass(frozen=True)
class DeviceRequest:
    """Where the user wants a model to run. `is_required`: on the command line, so that it must not be something else.

    `engine`: what runs an ONNX file, onnxruntime or openvino. `output`: which of its outputs holds the logits; None:
    the file decides. `native_code`: whether a file may be run that is machine code.
    """

    target: str | None = None
    index: int = 0
    is_required: bool = False
    engine: str = "onnxruntime"
    output: str | None = None
    native_code: bool = False


@dataclass(frozen=True)
class ModelFile:
    """An opened model. `classes` is None where the file has no names; `num_classes` is always known.

    Of weights `path` is their file. `facts`: what a file says of the run that its weights are from. `open_inside`: None
    where nothing here looks into files of this kind; it raises UserError for one whose inside is not as `Inside` has
    it.
    """

    runtime: Runtime
    preprocessing: Preprocessing
    classes: ClassMap | None
    num_classes: int
    architecture: Architecture | None = None
    path: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    open_inside: Callable[[], Inside] | None = None

    def inside(self) -> Inside:
        """What stands before its head. Raises UserError where that cannot be told."""
        if self.open_inside is None:
            raise UserError("of this model file nothing here sees the inside; weights and ONNX files show it")
        return self.open_inside()
