"""The network as machine code of this kind of processor, by torch's AOTInductor."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    from convmixer.exporters.torch_program import write_compiled

    write_compiled(model, metadata, path)


# Both are torch's .pt2 archives, and a folder may hold both of one network.
FORMAT = Format(".aoti.pt2", write)
