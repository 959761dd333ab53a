"""The formats that export writes: the end of a file's name, and who writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convmixer.errors import UserError
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer

# Yields crops uint8 [N, size, size, channels] of images that represent what the network will see.
Calibration = Callable[[], Iterator[np.ndarray]]


class Writer(Protocol):
    """Writes an exported file, and what belongs beside it under names that begin with the file's. `opset`: of ONNX."""

    def __call__(
        self, model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, opset: int
    ) -> None: ...


@dataclass(frozen=True)
class Format:
    """`runs`: the file can be loaded again and compared with the weights, on the machine that wrote it."""

    suffix: str
    write: Writer
    runs: bool = True


# The engines are imported late: each is an extra of its own.
def _onnx(model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, opset: int) -> None:
    try:
        from convmixer.exporters.onnx import write_onnx
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: ONNX needs {error.name}, pip install 'convmixer[onnx]'") from None

    write_onnx(model, metadata, path, calibration, opset)


def _mindir(model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, opset: int) -> None:
    from convmixer.exporters.mindspore import export_mindspore

    export_mindspore(model, metadata, path, "MINDIR")


def _air(model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, opset: int) -> None:
    from convmixer.exporters.mindspore import export_mindspore

    export_mindspore(model, metadata, path, "AIR")


FORMATS = {
    "ONNX": Format(".onnx", _onnx),
    "MINDIR": Format(".mindir", _mindir),
    # MindSpore writes AIR for Ascend's own compiler and cannot load it.
    "AIR": Format(".air", _air, runs=False),
}
