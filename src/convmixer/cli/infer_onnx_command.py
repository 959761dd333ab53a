"""`convmixer infer-onnx`: classify image files with an ONNX file; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from convmixer.cli.eval_onnx_command import open_named_model
from convmixer.cli.infer_command import answer, check_output, find_images
from convmixer.config.loading import Command, parse
from convmixer.config.onnx import InferOnnxOptions

COMMAND = Command("infer-onnx", "Classify images with an ONNX model.", InferOnnxOptions, positional="data")


def main(argv: Sequence[str]) -> int:
    resolved = parse(COMMAND, argv)
    files = find_images(resolved.options)
    check_output(resolved.options.output)
    model = open_named_model(resolved)
    return answer(resolved, files, model, ahead=resolved.options.prefetch)
