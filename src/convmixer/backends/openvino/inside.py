"""The inside of an OpenVINO IR that pools and then applies a linear head, as ConvMixers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from convmixer.backends.graph_inside import GraphInside, Part
from convmixer.backends.graph_runtime import GraphRuntime
from convmixer.backends.openvino.engine import core
from convmixer.errors import UserError, first_line


class OpenVinoInside(GraphInside):
    """That of `graph`, whose output number `output` holds the logits. Raises UserError for one that is not made so."""

    def __init__(self, runtime: GraphRuntime, graph: Any, output: int) -> None:
        super().__init__(runtime)
        self._graph, self._output = graph, output

    def _open(self, part: Part) -> Callable[[np.ndarray], list[np.ndarray]]:
        try:
            graph = (_with_features if part == "features" else _with_maps)(self._graph.clone(), self._output)
            compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise UserError(f"{self._runtime.path}: what is inside cannot be told: {first_line(error)}") from None
        return lambda batch: [np.asarray(value) for value in compiled([batch]).values()]


def _with_features(graph: Any, output: int) -> Any:
    pooling = _pooling(graph, output)
    logits = graph.outputs[output].get_node().input_value(0)
    return openvino.Model([ops.result(pooling.output(0)), ops.result(logits)], graph.get_parameters())


def _with_maps(graph: Any, output: int) -> Any:
    """The head at each position: in the place of the pooling stand the positions, as if each were an image."""
    pooling = _pooling(graph, output)
    maps = pooling.input_value(0)
    channels = maps.get_partial_shape()[1].get_length()
    last = ops.transpose(maps, np.array([0, 2, 3, 1]))
    keeps = pooling.output(0).get_partial_shape().rank.get_length() == 4
    rows = ops.reshape(last, np.array([-1, channels, 1, 1] if keeps else [-1, channels]), False)
    pooling.output(0).replace(rows.output(0))
    logits = graph.outputs[output].get_node().input_value(0)
    return openvino.Model([ops.result(logits)], graph.get_parameters())


def _pooling(graph: Any, output: int) -> Any:
    """The mean over height and width from which the logits come. Raises LookupError where there is none."""
    node = graph.outputs[output].get_node()
    for _ in range(len(graph.get_ops())):
        if node.get_type_name() == "ReduceMean":
            return node
        made = [value.get_node() for value in node.input_values() if not _is_constant(value.get_node())]
        if len(made) != 1:
            raise LookupError
        (node,) = made
    raise LookupError


def _is_constant(node: Any) -> bool:
    """Whether a node's value is made of weights alone."""
    if node.get_type_name() == "Constant":
        return True
    inputs = node.input_values()
    return bool(inputs) and all(_is_constant(value.get_node()) for value in inputs)
