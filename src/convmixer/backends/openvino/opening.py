"""An ONNX file in OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from convmixer.errors import UserError, first_line
from convmixer.metadata import ModelMetadata
from convmixer.packages import needed_for

logger = logging.getLogger(__name__)


def openvino_engine(path: str, metadata: ModelMetadata | None, output: int) -> Callable[[np.ndarray], object]:
    """What runs the file; what it leaves in fp32 stays so, but for the rest of an int8 or fp16 one.

    `output`: the number of the one that holds the logits. Raises UserError where OpenVINO is not installed, or does not
    know the file.
    """
    with needed_for("--engine: openvino"):
        import openvino

        from convmixer.backends.openvino.engine import OpenVinoEngine, core, has_bf16, is_quantised
    try:
        graph = core().read_model(path)
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO does not know it: {first_line(error)}") from None
    lower = is_quantised(graph) or (metadata is not None and metadata.precision != "fp32")
    precision = "bf16" if lower and has_bf16() else "f32"
    logger.info(
        f"OpenVINO {openvino.__version__.partition('-')[0]}, {'int8 and ' if is_quantised(graph) else ''}{precision}"
    )
    return OpenVinoEngine(graph, precision, output)
