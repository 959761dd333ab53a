"""Model files in OpenVINO: an ONNX file that was opened already, and OpenVINO's own IR."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.backends.graph_input import form_of
from convmixer.backends.graph_runtime import GraphRuntime, chosen_preprocessing
from convmixer.backends.inside import Inside
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.backends.probabilities import random_image
from convmixer.errors import UserError, first_line
from convmixer.metadata import KEY, ModelMetadata, decode_metadata
from convmixer.packages import needed_for

logger = logging.getLogger(__name__)

# Operators that repeat a part of the network, as often as a file says.
_REPEATING = {"Loop", "TensorIterator"}
# What keeps every value, or only its number type or place.
_PASSES_ON = {"Result", "Convert", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class _Input:
    name: str
    type: str
    shape: tuple[int | None, ...]


def openvino_engine(path: str, metadata: ModelMetadata | None, output: int) -> Callable[[np.ndarray], object]:
    """What runs an ONNX file; what it leaves in fp32 stays so, but for the rest of an int8 or fp16 one.

    `output`: the number of the one that holds the logits. Raises UserError where OpenVINO is not installed, or does not
    know the file.
    """
    graph = _read(path, "--engine: openvino")
    return _engine(graph, output, lower=metadata is not None and metadata.precision != "fp32")


def open_ir(path: str, choose: Chooser, request: DeviceRequest) -> ModelFile:
    """Open OpenVINO's IR, NAME.xml with NAME.bin beside it; see `backends.opening.open_model`.

    Raises UserError for one that is broken, or no image classifier. What a file of others does not say is ImageNet's.
    """
    if request.is_required and request.target not in (None, "CPU"):
        raise UserError(f"--device_target: OpenVINO runs on the CPU, not on {request.target}; leave the option out")
    graph = _read(path, f"{path}: OpenVINO IR")
    repeating = sorted(_REPEATING & {node.get_type_name() for node in graph.get_ops()})
    if repeating:
        raise UserError(f"{path}: holds a {repeating[0]}, which an image classifier does not need; it is refused")
    form = form_of(path, [_described(entry) for entry in graph.inputs])
    metadata, output = _metadata(path, graph), _output(path, graph, request.output)
    chosen = chosen_preprocessing(path, form, metadata, choose)
    runtime = GraphRuntime(path, _engine(graph, output), form, metadata, chosen)
    model = runtime.as_model(runtime.logits(random_image(chosen)), _last_operator(graph, output))
    assert isinstance(model.runtime, GraphRuntime)
    return replace(model, open_inside=partial(_inside, model.runtime, graph, output))


def _inside(runtime: GraphRuntime, graph: Any, output: int) -> Inside:
    from convmixer.backends.openvino.inside import OpenVinoInside

    return OpenVinoInside(runtime, graph, output)


def _read(path: str, what: str) -> Any:
    """The graph of a file. `what`: the beginning of the message where OpenVINO is missing."""
    with needed_for(what):
        import openvino  # noqa: F401  (asked for by its own name, so that the message has that)

        from convmixer.backends.openvino.engine import core
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{path}: no such file")
    weights = file.with_suffix(".bin")
    if file.suffix == ".xml" and not weights.is_file():
        raise UserError(f"{path}: its weights, {weights.name}, are not beside it")
    try:
        return core().read_model(path)
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO does not know it, or it is damaged: {_reason(error)}") from None


def _engine(graph: Any, output: int, *, lower: bool = False) -> Callable[[np.ndarray], object]:
    """`lower`: whether what the graph has in fp32 may be computed in bf16 though it is not quantised.

    IR in fp16 is not: there it is only the weights that are stored so, and bf16 would differ by more than fp16 may.
    """
    import openvino

    from convmixer.backends.openvino.engine import OpenVinoEngine, has_bf16, is_quantised

    precision = "bf16" if (lower or is_quantised(graph)) and has_bf16() else "f32"
    logger.info(
        f"OpenVINO {openvino.__version__.partition('-')[0]}, {'int8 and ' if is_quantised(graph) else ''}{precision}"
    )
    return OpenVinoEngine(graph, precision, output)


def _described(entry: Any) -> _Input:
    name = next(iter(sorted(entry.get_names())), entry.get_node().get_friendly_name())
    shape = entry.get_partial_shape()
    if shape.rank.is_dynamic:
        return _Input(name, entry.get_element_type().get_type_name(), ())
    sides = tuple(side.get_length() if side.is_static else None for side in shape)
    return _Input(name, entry.get_element_type().get_type_name(), sides)


def _metadata(path: str, graph: Any) -> ModelMetadata | None:
    if not graph.has_rt_info([KEY]):
        return None
    try:
        return decode_metadata(graph.get_rt_info([KEY]).astype(str))
    except (ValueError, RuntimeError) as error:  # the second for a value that is no text
        raise UserError(f"{path}: a damaged IR file: {first_line(error)}") from None


def _output(path: str, graph: Any, wanted: str | None) -> int:
    """The number of the output that holds the logits: the one asked for, else the first that can be [images, classes].

    The commands of ONNX files have the option for it; others take the first.
    """
    ranks = [entry.get_partial_shape().rank for entry in graph.outputs]
    names = [", ".join(sorted(entry.get_names())) or str(number) for number, entry in enumerate(graph.outputs)]
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"--onnx_output: {path} has no output {wanted}, but {', '.join(names)}")
        return names.index(wanted)
    flat = [number for number, rank in enumerate(ranks) if rank.is_dynamic or rank.get_length() == 2]
    chosen = (flat or [0])[0]
    if len(names) > 1:
        logger.info(f"{path}: has the outputs {', '.join(names)}; {names[chosen]} is taken")
    return chosen


def _last_operator(graph: Any, output: int) -> str | None:
    """The operator that an output's values come from."""
    node = graph.outputs[output].get_node()
    for _ in range(len(graph.get_ops())):
        if node.get_type_name() not in _PASSES_ON:
            break
        node = node.input_value(0).get_node()
    name: str = node.get_type_name()
    return name


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's error that says something: the first ones name its own source files."""
    lines = [
        line for line in str(error).splitlines() if line.strip() and not line.startswith(("Exception from", "Check"))
    ]
    return lines[-1][:300] if lines else first_line(error)
