"""ONNX, by torch's exporter."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Calibration, Format
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.packages import needed_for


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, calibration: Calibration, opset: int) -> None:
    with needed_for("--file_format: ONNX", extra="onnx"):
        from convmixer.exporters.onnx import write_onnx

        write_onnx(model, metadata, path, calibration, opset)


FORMAT = Format(".onnx", write)
