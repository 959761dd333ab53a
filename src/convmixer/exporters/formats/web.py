"""A folder with a page that classifies in the browser, by ONNX Runtime's WebAssembly."""

from __future__ import annotations

from pathlib import Path

from convmixer.exporters.format import Format, WriteSettings
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer
from convmixer.packages import needed_for


def write(model: ConvMixer, metadata: ModelMetadata, path: Path, settings: WriteSettings) -> None:
    with needed_for("--file_format: WEB", extra="onnx"):
        from convmixer.exporters.web import write_web

        write_web(model, metadata, path, settings)


FORMAT = Format(
    "_web",
    write,
    precisions=("fp32", "fp16", "int8"),
    options=("embed_preprocess", "opset", "int8_skip", "ort_web"),
    model="model.onnx",
    embeds_preprocessing=True,
)
