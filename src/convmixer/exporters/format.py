"""What a format of exported files is: the end of a file's name, and who writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.plugins import module_of

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


def format_of(name: str) -> Format:
    """The format that `file_format` names."""
    found: Format = module_of("exporters.formats", name.lower()).FORMAT
    return found
