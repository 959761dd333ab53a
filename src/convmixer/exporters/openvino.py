"""A ConvMixer as OpenVINO's IR: a graph, its weights beside it, and what it says of itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import openvino

from convmixer.backends.openvino.engine import core
from convmixer.exporters.format import Calibration
from convmixer.exporters.onnx import OPSET, precise_graph
from convmixer.metadata import KEY, ModelMetadata, encode_metadata
from convmixer.model import ConvMixer


def write_ir(
    model: ConvMixer,
    metadata: ModelMetadata,
    path: Path,
    calibration: Calibration,
    int8_skip: tuple[str, ...] = (),
) -> None:
    """Write NAME.xml, and NAME.bin with the weights beside it, in OpenVINO's fp32, in fp16 (weights only) or int8.

    Input `input`, float [batch, channels, size, size], normalised; output `logits`, float [batch, classes]. The record
    is `rt_info` of the graph. int8 is the quantised ONNX graph, as `exporters.quantise` makes it.
    """
    compressed = metadata.precision == "fp16"
    proto = precise_graph(model, metadata, calibration, OPSET, int8_skip, half=False)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "network.onnx")
        source.write_bytes(proto.SerializeToString())
        graph = core().read_model(source)
        graph.set_friendly_name(metadata.architecture.name)
        graph.set_rt_info(encode_metadata(metadata), [KEY])
        # Written while its source is there: the weights may still lie in that file.
        openvino.save_model(graph, path, compress_to_fp16=compressed)
