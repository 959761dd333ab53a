"""What runs a network: one protocol, uint8 images -> logits, whatever engine stands behind it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from convmixer.errors import UserError


class Runtime(Protocol):
    """Runs a network on cropped images; evaluation and prediction know nothing else of it."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        ...


@runtime_checkable
class Tunable(Protocol):
    """A runtime that has several backends for its network."""

    def tune(self, images: int | None, batch_size: int, image_size: int, execution: str) -> None:
        """Take the backend that `execution` (auto or a `BackendKind`) asks for, for so many images.

        None: for as many as a server sees, which is worth timing the backends, but nothing is compiled unasked.
        """
        ...


def tune(
    runtime: Runtime, images: int | None, batch_size: int, image_size: int, execution: str, *, is_required: bool
) -> None:
    """Have a runtime take the backend that `execution` asks for, as `Tunable.tune`.

    Raises UserError where that is not there, also with an engine that has no backends to choose from, if it was asked
    for on the command line (`is_required`).
    """
    if isinstance(runtime, Tunable):
        runtime.tune(images, batch_size, image_size, execution)
    elif is_required and execution != "auto":
        raise UserError(
            f"--execution: {execution} is for weights; exported files have an engine of their own "
            "(eval-onnx and infer-onnx: --engine)"
        )
