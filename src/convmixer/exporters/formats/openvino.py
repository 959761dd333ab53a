"""OpenVINO's IR, converted by OpenVINO from our ONNX graph."""

from __future__ import annotations

from pathlib import Path

from convmixer.errors import UserError
from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    try:
        from convmixer.exporters.openvino import write_ir
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: OPENVINO needs {error.name}, pip install 'convmixer[onnx,openvino]'") from None

    write_ir(model, metadata, path, settings.calibration, settings.int8_skip)


FORMAT = Format(".xml", write, precisions=("fp32", "fp16", "int8"), options=("int8_skip",), parts=(".bin",))
