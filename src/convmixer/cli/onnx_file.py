"""The ONNX file that eval-onnx and infer-onnx run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from convmixer.backends.model_file import DeviceRequest, ModelFile
from convmixer.backends.opening import detect_format, open_model
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.inputs import preprocessing_for


def open_named_model(resolved: Resolved[Any]) -> ModelFile:
    """The model of --onnx_path, else the only one in the current folder. Raises UserError where there is none."""
    options = resolved.options
    path = options.onnx_path or _only_onnx_file()
    if Path(path).exists() and detect_format(path) != "onnx":
        raise UserError(f"--onnx_path: {path} is not an ONNX file")
    is_required = resolved.is_explicit("device_target")
    request = DeviceRequest(options.device_target, options.device_id, is_required, options.engine, options.onnx_output)
    return open_model(path, partial(preprocessing_for, resolved), request)


def _only_onnx_file() -> str:
    found = sorted(str(path) for path in Path().glob("*.onnx"))
    if len(found) != 1:
        among = f"there are {len(found)} ({', '.join(found[:3])} ...)" if found else "there is none"
        raise UserError(f"--onnx_path: left out, it means the only .onnx file in the current folder, but {among}")
    return found[0]
