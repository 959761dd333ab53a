"""torch's own program of an exported network."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    from convmixer.exporters.torch_program import write_program

    write_program(model, metadata, path)


FORMAT = Format(".pt2", write)
