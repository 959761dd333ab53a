"""Options of exporting."""

from __future__ import annotations

from typing import Literal

from convmixer.config.options import Options, option
from convmixer.config.schema import Config


class ExportOptions(Options):
    """Export"""

    output: str | None = option(
        None,
        "file or folder of the exported model; left out: <arch>.onnx and so on in the current folder",
        flags=("-o",),
        path=True,
    )
    precision: Literal["fp32", "fp16", "int8"] = option(
        "fp32", "ONNX: of the weights; int8 is calibrated on images of the training set"
    )
    embed_preprocess: bool = option(False, "ONNX: the graph takes uint8 images, resizes, crops and normalises them")
    opset: int = option(
        20, "ONNX: version of its operators; a lower one for older runtimes, GELU is slower below 20", ge=13, le=23
    )
    tolerance: float | None = option(
        None, "largest difference from the weights' logits, as a fraction of the largest; left out: by precision", gt=0
    )
    parity_images: int = option(32, "images that the exported file is compared on", ge=1)
    calibration_images: int = option(64, "images that int8 takes the ranges of activations from", ge=1)


class ExportConfig(ExportOptions, Config):
    """Options of `export`."""
