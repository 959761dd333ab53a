"""A folder with a page that classifies in the browser, by ONNX Runtime's WebAssembly."""

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
        from convmixer.exporters.web import write_web
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: WEB needs {error.name}, pip install 'convmixer[onnx]'") from None

    write_web(model, metadata, path, calibration, options)


FORMAT = Format(
    "_web",
    write,
    options=("precision", "embed_preprocess", "opset", "ort_web"),
    model="model.onnx",
    embeds_preprocessing=True,
)
