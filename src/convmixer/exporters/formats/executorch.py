"""ExecuTorch's program for phones, computed by XNNPACK."""

from __future__ import annotations

import warnings
from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.packages import needed_for


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    with needed_for("--file_format: EXECUTORCH", extra="executorch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how ExecuTorch reads its own files
            from convmixer.exporters.executorch import write_pte

        write_pte(model, metadata, path)


FORMAT = Format(".pte", write)
