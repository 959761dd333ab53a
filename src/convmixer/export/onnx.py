"""A ConvMixer as one ONNX file: the network, on request its preprocessing, and what it says of itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import torch
from torch import nn

from convmixer import __version__
from convmixer.export.preprocess import NORMALISED, OPSET, preprocessing_graph
from convmixer.export.quantise import quantise
from convmixer.model import ConvMixer
from convmixer.runtime.about import KEY, About

INPUT, OUTPUT = "input", "logits"


class _HalfPrecision(nn.Module):
    """A copy of the network in half precision, single precision at both ends."""

    def __init__(self, model: ConvMixer) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.half())
        return logits.float()


def write_onnx(
    model: ConvMixer, about: About, path: Path, calibration: Callable[[], Iterator[np.ndarray]] | None = None
) -> None:
    """Write one ONNX file without external data.

    Input `input`, float [batch, channels, size, size], normalised; with the preprocessing in the graph `images`, uint8
    [batch, height, width, channels]. Output `logits`, float [batch, classes]. `calibration()` yields crops uint8
    [N, size, size, channels] for int8. Raises UserError for a preprocessing that ONNX does not have.
    """
    front = preprocessing_graph(about.preprocessing) if about.embed_preprocess else None
    proto = network_graph(model, about)
    if about.precision == "int8":
        assert calibration is not None
        proto = quantise(proto, INPUT, calibration(), about.preprocessing)
    if front is not None:
        proto = _joined(front, proto)
    _describe(proto, about)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def network_graph(model: ConvMixer, about: About) -> onnx.ModelProto:
    """The network alone, for any batch size, in half precision where `about` says fp16."""
    size, arch = about.preprocessing.size, model.arch
    network = _HalfPrecision(model) if about.precision == "fp16" else model
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, arch.in_chans, size, size)
    program = torch.onnx.export(
        network.eval(),
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _joined(front: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """The preprocessing and behind it the network."""
    graph = onnx.compose.add_prefix(front, "preprocess/", rename_inputs=False, rename_outputs=False)
    graph.ir_version = network.ir_version
    # Quantisation adds a domain, and two merged models must have the same ones.
    domains = {entry.domain for entry in graph.opset_import}
    graph.opset_import.extend(entry for entry in network.opset_import if entry.domain not in domains)
    return onnx.compose.merge_models(graph, network, io_map=[(NORMALISED, INPUT)])


def _describe(proto: onnx.ModelProto, about: About) -> None:
    """Say what the model is, and leave out the exporter's traces, which name the files of this machine."""
    graph = proto.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph):
        del item.metadata_props[:]
        item.doc_string = ""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=KEY, value=about.encode())
    proto.producer_name, proto.producer_version = "convmixer", __version__
    graph.name = about.architecture.name
