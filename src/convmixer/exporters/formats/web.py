"""A folder with a page that classifies in the browser, by ONNX Runtime's WebAssembly."""

from __future__ import annotations

from pathlib import Path

from convmixer.errors import UserError
from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    try:
        from convmixer.exporters.web import write_web
    except ModuleNotFoundError as error:
        raise UserError(f"--file_format: WEB needs {error.name}, pip install 'convmixer[onnx]'") from None

    write_web(model, metadata, path, settings)


FORMAT = Format(
    "_web",
    write,
    precisions=("fp32", "fp16", "int8"),
    options=("embed_preprocess", "opset", "int8_skip", "ort_web"),
    model="model.onnx",
    embeds_preprocessing=True,
)
