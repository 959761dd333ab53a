"""The inside of an OpenVINO IR that pools and then applies a linear head, as ConvMixers do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from convmixer.backends.graph_runtime import GraphRuntime
from convmixer.backends.inside import are_maps
from convmixer.backends.openvino.engine import core
from convmixer.backends.padding import filled_up
from convmixer.errors import UserError, first_line


class OpenVinoInside:
    """That of `graph`, whose output number `output` holds the logits. Raises UserError for one that is not made so."""

    def __init__(self, runtime: GraphRuntime, graph: Any, output: int) -> None:
        self._runtime, self._graph, self._output = runtime, graph, output
        self._compiled: dict[str, Any] = {}
        self._is_proven = False

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._ask("features", image[None]) for image in images]
        pooled, logits = (np.concatenate(values) for values in zip(*rows, strict=True))
        undo = self._runtime.undo
        return pooled.reshape(len(images), -1), logits if undo is None else undo(logits)

    def class_maps(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        maps = []
        for image, label in zip(images, classes.tolist(), strict=True):
            (rows,) = self._ask("maps", image[None])
            side = math.isqrt(len(rows))
            whole = rows.reshape(side, side, -1)
            if not self._is_proven:
                _, logits = self._ask("features", image[None])
                if not are_maps(whole, logits[0], self._runtime.metadata):
                    raise UserError(f"{self._runtime.path}: its head is not linear; there are no exact maps")
                self._is_proven = True
            maps.append(whole[..., label])
        return np.stack(maps)

    def _ask(self, kind: str, image: np.ndarray) -> list[np.ndarray]:
        if kind not in self._compiled:
            try:
                graph = (_with_features if kind == "features" else _with_maps)(self._graph.clone(), self._output)
                settings = {"INFERENCE_PRECISION_HINT": "f32"}
                self._compiled[kind] = core().compile_model(graph, "CPU", settings)
            except LookupError:
                raise UserError(f"{self._runtime.path}: does not pool and then apply one linear layer") from None
            except RuntimeError as error:
                raise UserError(f"{self._runtime.path}: its inside cannot be told: {first_line(error)}") from None
        size = self._runtime.form.batch or 1
        found = self._compiled[kind]([filled_up(self._runtime.inputs(image), size)])
        return [np.asarray(value, np.float32)[: len(value) // size] for value in found.values()]


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
