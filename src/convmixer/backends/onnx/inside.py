"""The inside of an ONNX file that pools and then applies a linear head, as ConvMixers do, from here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime

from convmixer.backends.graph_inside import GraphInside, Part
from convmixer.backends.graph_runtime import GraphRuntime
from convmixer.backends.onnx.session import CPU, SILENT, reason
from convmixer.errors import UserError
from convmixer.machine import usable_cores
from convmixer.packages import needed_for

_POOLING = ("ReduceMean", "GlobalAveragePool")
# A linear head; what stands around it of casts, of shapes and of quantisation.
_HEAD = ("Gemm", "MatMul", "Add", "Conv")
_AROUND = ("Cast", "Flatten", "Reshape", "Squeeze", "Identity", "QuantizeLinear", "DequantizeLinear", "Softmax")
_PREFIX = "inside/"


class OnnxInside(GraphInside):
    """That of a file in ONNX Runtime; `output` is the name of the one that holds the logits.

    Raises UserError where the package onnx is not installed, and for a file that is not made so.
    """

    def __init__(self, runtime: GraphRuntime, output: str) -> None:
        super().__init__(runtime)
        with needed_for("a look inside an ONNX file"):
            import onnx
        self._onnx, self._output = onnx, output

    def _open(self, part: Part) -> Callable[[np.ndarray], list[np.ndarray]]:
        path, name = self._runtime.path, self._runtime.form.name
        try:
            proto = self._onnx.load_model(path)
            (_with_features if part == "features" else _with_maps)(self._onnx.helper, proto, self._output)
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = usable_cores()
            settings.log_severity_level = SILENT
            session = onnxruntime.InferenceSession(proto.SerializeToString(), settings, providers=[CPU])
        except LookupError:
            raise
        except Exception as error:  # ONNX Runtime has no base class of its errors
            raise UserError(f"{path}: what is inside cannot be told: {reason(error)}") from None

        def run(batch: np.ndarray) -> list[np.ndarray]:
            outputs: list[np.ndarray] = session.run(None, {name: batch})
            return outputs

        return run


def _with_features(helper: Any, proto: Any, output: str) -> None:
    """The pooled features and the logits as the only outputs."""
    pooling, logits = _pooling(proto, output), [each for each in proto.graph.output if each.name == output]
    float_type = logits[0].type.tensor_type.elem_type
    del proto.graph.output[:]
    # Of any form: [N, dim] or [N, dim, 1, 1].
    proto.graph.node.append(helper.make_node("Cast", [pooling.output[0]], [_PREFIX + "features"], to=float_type))
    proto.graph.output.extend([helper.make_tensor_value_info(_PREFIX + "features", float_type, None), logits[0]])


def _with_maps(helper: Any, proto: Any, output: str) -> None:
    """The head at each position: in the place of the pooling stand the positions, as if each were an image."""
    pooling = _pooling(proto, output)
    nodes = proto.graph.node
    at = list(nodes).index(pooling)
    keeps = pooling.op_type == "GlobalAveragePool" or any(
        attribute.name == "keepdims" and attribute.i == 1 for attribute in pooling.attribute
    )
    pooled, found = pooling.output[0], pooling.input[0]
    rows = [
        helper.make_node("Transpose", [found], [_PREFIX + "last"], perm=[0, 2, 3, 1]),
        helper.make_node("Shape", [found], [_PREFIX + "dim"], start=1, end=2),
        helper.make_node(
            "Concat",
            [_PREFIX + "any", _PREFIX + "dim", *([_PREFIX + "ones"] if keeps else [])],
            [_PREFIX + "shape"],
            axis=0,
        ),
        helper.make_node("Reshape", [_PREFIX + "last", _PREFIX + "shape"], [pooled]),
    ]
    proto.graph.initializer.extend(
        [helper.make_tensor(_PREFIX + "any", 7, [1], [-1]), helper.make_tensor(_PREFIX + "ones", 7, [2], [1, 1])]
    )
    before, after = list(nodes)[:at], list(nodes)[at + 1 :]
    del nodes[:]
    nodes.extend([*before, *rows, *after])
    logits = next(each for each in proto.graph.output if each.name == output)
    del proto.graph.value_info[:]  # shapes that are no longer so
    del proto.graph.output[:]
    proto.graph.output.append(
        helper.make_tensor_value_info(output, logits.type.tensor_type.elem_type, ["position", "class"])
    )


def _pooling(proto: Any, output: str) -> Any:
    """The node that pools before the one linear layer that makes the logits. Raises LookupError where there is none."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name for tensor in proto.graph.initializer}
    name, heads = output, 0
    for node in _upwards(name, makers, constants):
        if node.op_type in _POOLING:
            if not heads:
                raise LookupError
            return node
        heads += node.op_type in ("Gemm", "MatMul", "Conv")
        if node.op_type not in (*_HEAD, *_AROUND) or heads > 1:
            raise LookupError
    raise LookupError


def _upwards(name: str, makers: dict[str, Any], constants: set[str]) -> Iterator[Any]:
    """The nodes above a value, along the way that is not constant."""
    while name in makers:
        node = makers[name]
        yield node
        made = (each for each in node.input if each in makers and not _is_constant(each, makers, constants))
        name = next(made, "")


def _is_constant(name: str, makers: dict[str, Any], constants: set[str]) -> bool:
    """Whether a value is a weight, or made of weights alone."""
    if name in constants:
        return True
    node = makers.get(name)
    return node is not None and all(_is_constant(each, makers, constants) for each in node.input if each)
