"""`convmixer infer-onnx`: classify image files with an ONNX file; no torch."""

from __future__ import annotations

from convmixer.cli.answers import answer, check_output, find_images
from convmixer.cli.onnx_file import open_named_model
from convmixer.config.command import Command
from convmixer.config.onnx import InferOnnxOptions
from convmixer.config.resolved import Resolved

COMMAND = Command("infer-onnx", "Classify images with an ONNX model.", InferOnnxOptions, positional="data")


def run(resolved: Resolved[InferOnnxOptions]) -> int:
    files = find_images(resolved.options)
    check_output(resolved.options.output)
    return answer(resolved, files, open_named_model(resolved), ahead=resolved.options.prefetch)
