"""Static int8 quantisation of an exported network: the pointwise convolutions and the head, nearly all of the work.

The depthwise convolutions stay in single precision: each channel has a filter and a range of its own, and they are a
hundredth of the multiplications.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from convmixer.data.preprocessing import Preprocessing

_QUANTISED = re.compile(r"blocks\.\d+\.pointwise\.weight|head\.weight")


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    """Normalised batches for the calibration, one at a time."""

    def __init__(self, name: str, crops: Iterator[np.ndarray], preprocessing: Preprocessing) -> None:
        self._name, self._crops, self._preprocessing = name, crops, preprocessing

    def get_next(self) -> dict[str, np.ndarray] | None:
        crops = next(self._crops, None)
        return None if crops is None else {self._name: self._preprocessing.normalise(crops)}


def layers_of(proto: onnx.ModelProto) -> dict[str, str]:
    """The layers that int8 is for, from first to last, as `blocks.0.pointwise` or `head`, with the names of their
    nodes."""
    nodes = {
        node.input[1].removesuffix(".weight"): node.name
        for node in proto.graph.node
        if len(node.input) > 1 and _QUANTISED.fullmatch(node.input[1])
    }
    assert nodes, "the exporter has changed the names of the weights"
    return nodes


def quantise(
    proto: onnx.ModelProto,
    name: str,
    crops: Iterator[np.ndarray],
    preprocessing: Preprocessing,
    layers: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """The network with int8 weights, a scale for each output channel, and activations in the ranges that `crops` show.

    `crops`: uint8 [N, size, size, channels], for the input `name`. `layers`: of `layers_of`; left out: all.
    """
    known = layers_of(proto)
    nodes = [known[layer] for layer in (known if layers is None else layers)]
    # It asks for a simplified graph, which torch's exporter has written already.
    logging.getLogger().addFilter(_no_hint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "int8.onnx"
            quantize_static(
                proto,
                output,
                _Crops(name, crops, preprocessing),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                # Seven bits: with eight, processors without VNNI instructions saturate silently.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
                calibrate_method=CalibrationMethod.MinMax,
            )
            return onnx.load_model(str(output))
    finally:
        logging.getLogger().removeFilter(_no_hint)


def _no_hint(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
