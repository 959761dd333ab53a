"""What a format of exported files is: the end of a file's name, who writes it, and what it can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convmixer.config.export import ExportOptions
from convmixer.errors import UserError
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.plugins import module_of, names_in

# Options that not every format takes.
OWN_OPTIONS = ("precision", "embed_preprocess", "opset", "ort_web")
# Yields crops uint8 [N, size, size, channels] of images that represent what the network will see.
Calibration = Callable[[], Iterator[np.ndarray]]


class Writer(Protocol):
    """Writes an exported file, and what belongs beside it under names that begin with the file's.

    Of a format that is a folder `path` is that folder, which is not there yet.
    """

    def __call__(
        self, model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, options: ExportOptions
    ) -> None: ...


@dataclass(frozen=True)
class Format:
    """What a format is.

    `suffix`: the end of its files' names. `runs`: the file can be loaded again and compared with the weights, on the
    machine that wrote it. `options`: those of OWN_OPTIONS that mean something to it. `model`: the format is a folder,
    and this the file in it that is compared. `embeds_preprocessing`: its graph always resizes, crops and normalises.
    """

    suffix: str
    write: Writer
    runs: bool = True
    options: tuple[str, ...] = ()
    model: str | None = None
    embeds_preprocessing: bool = False

    def model_file(self, path: Path) -> Path:
        """The file that answers, of what was exported as `path`."""
        return path if self.model is None else path / self.model


def format_of(name: str) -> Format:
    """The format that `file_format` names."""
    found: Format = module_of("exporters.formats", name.lower()).FORMAT
    return found


def check_options(options: ExportOptions, file_format: str) -> None:
    """Raise UserError for an option that means nothing to the format."""
    for name in OWN_OPTIONS:
        if getattr(options, name) == ExportOptions.model_fields[name].default:
            continue
        takers = [other.upper() for other in names_in("exporters.formats") if name in format_of(other).options]
        if file_format not in takers:
            raise UserError(f"--{name}: is for {' and '.join(takers)} only, not for {file_format}")
