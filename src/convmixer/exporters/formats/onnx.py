"""ONNX, by torch's exporter."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.packages import needed_for


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    with needed_for("--file_format: ONNX", extra="onnx"):
        from convmixer.exporters.onnx import write_onnx

        write_onnx(model, metadata, path, settings.calibration, settings.opset, settings.int8_skip)


FORMAT = Format(".onnx", write, precisions=("fp32", "fp16", "int8"), options=("embed_preprocess", "opset", "int8_skip"))
