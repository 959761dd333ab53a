"""ONNX, by torch's exporter."""

from __future__ import annotations

from pathlib import Path

from convmixer.config.export import ExportOptions
from convmixer.errors import UserError
from convmixer.exporters.format import Calibration, Format
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(
    model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, options: ExportOptions
) -> None:
    try:
        from convmixer.exporters.onnx import write_onnx
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: ONNX needs {error.name}, pip install 'convmixer[onnx]'") from None

    write_onnx(model, metadata, path, calibration, options.opset)


FORMAT = Format(".onnx", write, options=("precision", "embed_preprocess", "opset"))
