"""Options of exporting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from convmixer.config.options import Options, option
from convmixer.plugins import names_in

if TYPE_CHECKING:
    FileFormat = str
else:
    FileFormat = Literal[tuple(name.upper() for name in names_in("exporters.formats"))]
WeightPrecision = Literal["fp32", "fp16", "int8"]


class FormatOptions(Options):
    """Export"""

    file_format: FileFormat = option("ONNX", "what export writes", commands="export", affects_training=False)


class ExportOptions(Options):
    """Export"""

    output: str | None = option(
        None,
        "file or folder of the exported model; left out: <arch>.onnx, <arch>_web and so on, here",
        flags=("-o",),
        path=True,
        other_names="out o out_dir output_dir output_file save save_dir result",
        commands="export",
    )
    precision: WeightPrecision = option(
        "fp32",
        "ONNX, OPENVINO, WEB: of the weights; int8 is calibrated on images of the training set",
        other_names="half quantize quantise dtype",
        commands="export",
    )
    int8_skip: tuple[str, ...] = option(
        (), "layers that int8 leaves in single precision, as blocks.3.pointwise head", commands="export"
    )
    embed_preprocess: bool = option(
        False, "ONNX: the graph takes uint8 images, resizes, crops and normalises them", commands="export"
    )
    opset: int = option(
        20,
        "ONNX, WEB: version of its operators; a lower one for older runtimes, GELU is slower below 20",
        commands="export",
        ge=13,
        le=23,
    )
    ort_web: str | None = option(
        None,
        "WEB: folder or .tgz of the npm package onnxruntime-web; left out: npm fetches it once",
        path=True,
        commands="export",
    )
    tolerance: float | None = option(
        None,
        "maximum difference from the weights' logits, as a fraction of the largest; left out: by precision",
        commands="export",
        gt=0,
    )
    parity_images: int = option(32, "images that the exported file is compared on", commands="export", ge=1)
    calibration_images: int = option(
        64, "images that int8 takes the ranges of activations from", commands="export", ge=1
    )
