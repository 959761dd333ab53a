"""OpenVINO's IR, converted by OpenVINO from our ONNX graph."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.packages import needed_for


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    with needed_for("--file_format: OPENVINO", extra="onnx,openvino"):
        from convmixer.exporters.openvino import write_ir

        write_ir(model, metadata, path, settings.calibration, settings.int8_skip)


FORMAT = Format(".xml", write, precisions=("fp32", "fp16", "int8"), options=("int8_skip",), parts=(".bin",))
