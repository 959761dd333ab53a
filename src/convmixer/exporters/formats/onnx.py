"""ONNX, by torch's exporter."""

from __future__ import annotations

from pathlib import Path

from convmixer.errors import UserError
from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    try:
        from convmixer.exporters.onnx import write_onnx
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: ONNX needs {error.name}, pip install 'convmixer[onnx]'") from None

    write_onnx(model, metadata, path, settings.calibration, settings.opset, settings.int8_skip)


FORMAT = Format(".onnx", write, precisions=("fp32", "fp16", "int8"), options=("embed_preprocess", "opset", "int8_skip"))
