"""`convmixer infer-onnx`: classify image files with an ONNX file; no torch."""

from __future__ import annotations

from convmixer.cli.answers import answer, prepare
from convmixer.cli.onnx_file import open_named_model
from convmixer.config.command import Command
from convmixer.config.onnx import InferOnnxOptions
from convmixer.config.resolved import Resolved

COMMAND = Command("infer-onnx", "Classify images with an ONNX model.", InferOnnxOptions, positional="data")


def run(resolved: Resolved[InferOnnxOptions]) -> int:
    images = prepare(resolved.options)
    return answer(resolved, images, open_named_model(resolved), ahead=resolved.options.prefetch)
