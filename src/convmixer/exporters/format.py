"""What a format of exported files is: the end of a file's name, what it can hold, and who writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.plugins import module_of, names_in

_FORMATS = "exporters.formats"
# Yields crops uint8 [N, size, size, channels] of images that represent what the network will see.
Calibration = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class WriteSettings:
    """What a writer may need beside the network.

    `opset`: of ONNX. `int8_skip`: layers that int8 leaves as they are. `ort_web`: where ONNX Runtime for browsers lies.
    """

    calibration: Calibration
    opset: int = 20
    int8_skip: tuple[str, ...] = ()
    ort_web: str | None = None


class Writer(Protocol):
    """Writes an exported file and what belongs beside it: under names that begin with the file's, or as `parts` say.

    Of a format that is a folder `path` is that folder, which is not there yet.
    The precision is the record's. Raises UserError for what the format cannot hold, or for a package that is missing.
    """

    def __call__(self, model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None: ...


@dataclass(frozen=True)
class Format:
    """`runs`: the file can be loaded again and compared with the weights, on the machine that wrote it.

    `precisions` that it is written in. `options`: those of export's that it takes, and not every format does. `parts`:
    endings of the files without which it is not whole; they have its name with this ending in place of `suffix`.
    `model`: the format is a folder, and this the file in it that is compared. `embeds_preprocessing`: its graph always
    resizes, crops and normalises.
    """

    suffix: str
    write: Writer
    runs: bool = True
    precisions: tuple[str, ...] = ("fp32",)
    options: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    model: str | None = None
    embeds_preprocessing: bool = False

    def model_file(self, path: Path) -> Path:
        """The file that answers, of what was exported as `path`."""
        return path if self.model is None else path / self.model

    def part(self, path: Path, ending: str) -> Path:
        """The place of a part of the file `path`."""
        return path.with_name(path.name.removesuffix(self.suffix) + ending)


def format_of(name: str) -> Format:
    """The format that `file_format` names."""
    found: Format = module_of(_FORMATS, name.lower()).FORMAT
    return found


def formats_with(option: str) -> list[str]:
    """The names, as `file_format` has them, of the formats that take an option."""
    return [name.upper() for name in names_in(_FORMATS) if option in format_of(name).options]
