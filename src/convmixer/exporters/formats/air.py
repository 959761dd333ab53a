"""AIR, which MindSpore writes for Ascend's own compiler and cannot load."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.exporters.mindspore import export_mindspore
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    export_mindspore(model, metadata, path, "AIR")


FORMAT = Format(".air", write, runs=False)
