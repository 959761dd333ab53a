"""OpenVINO on the CPU: batches of images through several requests at once, each on cores of its own. No torch.

It runs a graph that has one input, images, and one output, logits: an ONNX file's, or one that `openvino.network`
builds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import openvino

from convmixer.backends.padding import filled_up

# Pixels of a request: one image at 224 px, so that its activations stay in a core's cache, and many small ones.
REQUEST_PIXELS = 128 * 128
MAX_IMAGES = 32
# Graphs that are kept compiled: of the few sizes of batches that a server runs, from one image to MAX_IMAGES.
MAX_FORMS = 8


@cache
def core() -> openvino.Core:
    """The one of this process, never given up.

    Each has its CPU plugin set a signal stack and free it at its end: after two that end out of their order, the next
    signal finds a stack that is freed, and the process dies (seen in OpenVINO 2026.4.1).
    """
    return openvino.Core()


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """`graph`, compiled for batches [images, *shape] of each shape that comes, of which the last MAX_FORMS are kept.

    `precision`: bf16 or f32 for what the graph has in fp32. `output`: the number of the one that holds the logits. Of a
    graph whose batch is fixed a request takes as much.
    Raises what OpenVINO raises for a graph that it does not know.
    """

    def __init__(self, graph: openvino.Model, precision: str, output: int = 0) -> None:
        self.graph, self.precision, self.output = graph, precision, output
        batch = graph.input(0).get_partial_shape()[0]
        self.batch = batch.get_length() if batch.is_static else None
        self._compiled: dict[tuple[int, ...], tuple[openvino.AsyncInferQueue, int]] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits [N, classes] of images [N, ...] in the type of the graph's input."""
        queue, step = self._queue(images)
        parts = [images[first : first + step] for first in range(0, len(images), step)]
        answers: list[Any] = [None] * len(parts)

        def keep(request: openvino.InferRequest, part: int) -> None:
            answers[part] = request.get_output_tensor(self.output).data[: len(parts[part])].copy()

        queue.set_callback(keep)
        for number, part in enumerate(parts):
            queue.start_async({0: np.ascontiguousarray(filled_up(part, step))}, number)
        queue.wait_all()
        return np.concatenate(answers)

    def _queue(self, images: np.ndarray) -> tuple[openvino.AsyncInferQueue, int]:
        """Requests for images of this size, and how many each takes. A lone image gets all cores."""
        pixels = images.size // len(images) // min(images.shape[1], images.shape[-1])
        step = self.batch or max(1, min(MAX_IMAGES, len(images), REQUEST_PIXELS // pixels))
        key = (step, *images.shape[1:], int(len(images) > step))
        if key not in self._compiled:
            graph = self.graph.clone()
            graph.reshape([step, *images.shape[1:]])
            hint = "THROUGHPUT" if len(images) > step else "LATENCY"
            settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": self.precision}
            compiled = core().compile_model(graph, "CPU", settings)
            if len(self._compiled) == MAX_FORMS:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[key] = (openvino.AsyncInferQueue(compiled), step)
        return self._compiled[key]


def is_quantised(graph: openvino.Model) -> bool:
    """Whether it holds int8 operations."""
    return any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())
