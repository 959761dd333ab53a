"""An ExecuTorch program in ExecuTorch's own runtime, as an app on a phone runs it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convmixer.backends.graph_input import form_of
from convmixer.backends.graph_runtime import GraphRuntime, chosen_preprocessing
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.backends.probabilities import random_image
from convmixer.errors import UserError, first_line
from convmixer.metadata import KEY, ModelMetadata, decode_metadata
from convmixer.packages import needed_for

_METHOD = "forward"
# ExecuTorch's numbers of the types of tensors.
_TYPES = {6: "f32", 5: "f16", 0: "u8"}


@dataclass(frozen=True)
class _Input:
    name: str
    type: str
    shape: tuple[int, ...]


def open_executorch(path: str, choose: Chooser, request: DeviceRequest) -> ModelFile:
    """Open a .pte file on the CPU; see `backends.opening.open_model`.

    Raises UserError for one that is damaged, for another backend than this machine has, or no image classifier.
    """
    if request.is_required and request.target not in (None, "CPU"):
        raise UserError(f"--device_target: ExecuTorch runs on the CPU, not on {request.target}; leave the option out")
    with needed_for(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its interface may change
        from executorch.runtime import Runtime, Verification
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        # It tells its developers there what it finds out of processor and file; what fails is raised.
        with redirect_stderr(io.StringIO()):
            program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            names = program.method_names
            method = program.load_method(_METHOD) if _METHOD in names else None
            record = program.load_method(KEY).execute([])[0] if KEY in names else None
    except RuntimeError as error:
        raise UserError(f"{path}: ExecuTorch cannot load it: {first_line(error)}") from None
    if method is None:
        raise UserError(f"{path}: has no method {_METHOD}, but {', '.join(sorted(names)) or 'none'}")
    metadata = None if record is None else _decoded(path, record)
    form = form_of(path, _inputs(method.metadata))
    chosen = chosen_preprocessing(path, form, metadata, choose)
    runtime = GraphRuntime(path, _engine(method), form, metadata, chosen)
    return runtime.as_model(runtime.logits(random_image(chosen)))


def _inputs(metadata: Any) -> list[_Input]:
    tensors = [metadata.input_tensor_meta(number) for number in range(metadata.num_inputs())]
    return [
        _Input(f"input {number}", _TYPES.get(tensor.dtype(), f"type {tensor.dtype()}"), tuple(tensor.sizes()))
        for number, tensor in enumerate(tensors)
    ]


def _decoded(path: str, record: Any) -> ModelMetadata:
    try:
        return decode_metadata(bytes(record.numpy()).decode())
    except (ValueError, AttributeError) as error:  # the second for a value that is no tensor
        raise UserError(f"{path}: a damaged .pte file: {first_line(error)}") from None


def _engine(method: Any) -> Callable[[np.ndarray], object]:
    import torch

    def run(batch: np.ndarray) -> object:
        out = method.execute([torch.from_numpy(np.ascontiguousarray(batch))])[0]
        return out.float().numpy().copy() if isinstance(out, torch.Tensor) else out

    return run
