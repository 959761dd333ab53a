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
from convmixer.errors import UserError, first_line
from convmixer.exporters.preprocess import NORMALISED, preprocessing_graph
from convmixer.exporters.quantise import layers_of, quantise
from convmixer.metadata import KEY, ModelMetadata, encode_metadata
from convmixer.model import ConvMixer

INPUT, OUTPUT = "input", "logits"
# The first opset with a GELU of its own: half as fast again in ONNX Runtime as the operations that 18 spells it with.
OPSET = 20
# The first that torch's exporter writes; what is asked for below is written from it.
_TORCH_OPSET = 18
# Later versions of the format have number types and notes that these graphs do without, and old runtimes refuse them.
_MAX_IR = 8


class _HalfPrecision(nn.Module):
    """A copy of the network in half precision, single precision at both ends."""

    def __init__(self, model: ConvMixer) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.half())
        return logits.float()


def write_onnx(
    model: ConvMixer,
    metadata: ModelMetadata,
    path: Path,
    calibration: Callable[[], Iterator[np.ndarray]] | None = None,
    opset: int = OPSET,
    int8_skip: tuple[str, ...] = (),
) -> None:
    """Write one ONNX file without external data, of this opset and the minimum IR version that holds it.

    Input `input`, float [batch, channels, size, size], normalised; with the preprocessing in the graph `images`, uint8
    [batch, height, width, channels]. Output `logits`, float [batch, classes]. `calibration()` yields crops uint8
    [N, size, size, channels] for int8, which leaves the layers `int8_skip` as they are. Raises UserError for what ONNX,
    or this opset, does not have.
    """
    front = preprocessing_graph(metadata.known_preprocessing, opset) if metadata.embed_preprocess else None
    proto = precise_graph(model, metadata, calibration, opset, int8_skip)
    if front is not None:
        proto = _joined(front, proto)
    _describe(proto, metadata)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = first_line(error)
        raise UserError(f"--opset: {opset} cannot hold this network ({reason}); {OPSET} can") from None
    path.write_bytes(proto.SerializeToString())


def precise_graph(
    model: ConvMixer,
    metadata: ModelMetadata,
    calibration: Callable[[], Iterator[np.ndarray]] | None,
    opset: int = OPSET,
    int8_skip: tuple[str, ...] = (),
    *,
    half: bool = True,
) -> onnx.ModelProto:
    """The network in the precision of `metadata`; see `write_onnx`. `half` False: what is to be fp16 stays fp32."""
    proto = network_graph(model, metadata, opset, half=half and metadata.precision == "fp16")
    if metadata.precision != "int8":
        return proto
    assert calibration is not None
    layers = kept_layers(proto, int8_skip)
    return quantise(proto, INPUT, calibration(), metadata.known_preprocessing, layers)


def kept_layers(proto: onnx.ModelProto, int8_skip: tuple[str, ...]) -> tuple[str, ...]:
    """The layers that int8 is for, but those named. Raises UserError for a name that is none of them."""
    known = layers_of(proto)
    for name in int8_skip:
        if name not in known:
            raise UserError(f"--int8_skip: {name!r} is none of the layers in int8: {', '.join(known)}")
    if not set(known) - set(int8_skip):
        raise UserError("--int8_skip: names every layer, so that nothing is left for int8; leave --precision out")
    return tuple(name for name in known if name not in int8_skip)


def network_graph(
    model: ConvMixer, metadata: ModelMetadata, opset: int = OPSET, *, half: bool = False
) -> onnx.ModelProto:
    """The network alone, for any batch size, in half precision where that is asked for."""
    size, arch = metadata.known_preprocessing.size, model.arch
    network = _HalfPrecision(model) if half else model
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, arch.in_chans, size, size)
    program = torch.onnx.export(
        network.eval(),
        (example,),
        dynamo=True,
        opset_version=max(opset, _TORCH_OPSET),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    if opset < _TORCH_OPSET:
        _lower(proto, opset)
    return proto


def _lower(proto: onnx.ModelProto, opset: int) -> None:
    """Spell the graph, of opset 18, in an older one: of its operators only ReduceMean has changed."""
    graph = proto.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "ReduceMean":
            axes = values[node.input.pop()]
            kept = [attribute for attribute in node.attribute if attribute.name == "keepdims"]
            del node.attribute[:]
            axes_list = onnx.numpy_helper.to_array(axes).tolist()
            node.attribute.extend([*kept, onnx.helper.make_attribute("axes", axes_list)])
            graph.initializer.remove(axes)
    proto.opset_import[0].version = opset


def _joined(front: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """The preprocessing and behind it the network."""
    graph = onnx.compose.add_prefix(front, "preprocess/", rename_inputs=False, rename_outputs=False)
    graph.ir_version = network.ir_version
    # Quantisation adds a domain, and two merged models must have the same ones.
    domains = {entry.domain for entry in graph.opset_import}
    graph.opset_import.extend(entry for entry in network.opset_import if entry.domain not in domains)
    return onnx.compose.merge_models(graph, network, io_map=[(NORMALISED, INPUT)])


def _describe(proto: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Say what the model is, and leave out the exporter's traces, which name the files of this machine."""
    graph = proto.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph):
        del item.metadata_props[:]
        item.doc_string = ""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=KEY, value=encode_metadata(metadata))
    proto.producer_name, proto.producer_version = "convmixer", __version__
    graph.name = metadata.architecture.name
    # Merging names a domain twice.
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items())
    proto.ir_version = min(onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True), _MAX_IR)
