"""From the path of a model to something that answers, by the file's content.

Nothing here imports an engine before a file needs it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convmixer.arch import ArchitectureHints, parse_arch
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.errors import UserError
from convmixer.packages import needed_for

if TYPE_CHECKING:
    import torch

ModelFormat = Literal["onnx", "openvino", "executorch", "torch_program", "mindir", "weights"]

# Protobuf: `ir_version`, a small number, and then the tag of another field of ModelProto.
_ONNX = re.compile(rb"\x08[\x01-\x7f][\x12\x1a\x22\x28\x32\x3a\x42\x72]")
# The same fields in MindSpore's ModelProto, where the version and the producer are text.
_MINDIR = re.compile(rb"\x0a.[0-9.]+\x12.MindSpore", re.DOTALL)

# OpenVINO's IR: XML whose root is a net.
_IR = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)?<net\s", re.DOTALL)
# The identifier of ExecuTorch's FlatBuffers.
_EXECUTORCH = re.compile(rb".{4}ET\d\d", re.DOTALL)
# A zip archive of torch.export or AOTInductor; those of torch.save have neither folder.
_TORCH_PROGRAM = re.compile(
    rb"PK\x03\x04.{26}[^/\x00]+/(data/(weights|constants|aotinductor|sample_inputs)|models)/", re.DOTALL
)
_PATTERNS: tuple[tuple[re.Pattern[bytes], ModelFormat], ...] = (
    (_ONNX, "onnx"),
    (_MINDIR, "mindir"),
    (_IR, "openvino"),
    (_EXECUTORCH, "executorch"),
    (_TORCH_PROGRAM, "torch_program"),
)
_ENDINGS: dict[str, ModelFormat] = {
    ".onnx": "onnx",
    ".mindir": "mindir",
    ".xml": "openvino",
    ".pte": "executorch",
    ".pt2": "torch_program",
}


def detect_format(path: str | os.PathLike[str]) -> ModelFormat:
    """The format of a model file, by its content, and by its ending where that does not say."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        head = b""  # a folder, or nothing: the reader says what is wrong with it
    found = next((name for pattern, name in _PATTERNS if pattern.match(head)), None)
    return found or ("weights" if path.is_dir() else _ENDINGS.get(path.suffix.lower(), "weights"))


def open_model(
    path: str,
    choose: Chooser,
    device: DeviceRequest,
    hints: ArchitectureHints = ArchitectureHints(),  # noqa: B008  (frozen)
    *,
    autocast: Callable[[torch.device], Any] | None = None,
    entry: str | None = None,
) -> ModelFile:
    """Open a weight file of any layout, a checkpoint folder, or an exported file.

    `hints` say what the file does not (all of them for weights, `arch` for the others); `entry` which network of a
    weight file that holds several. `autocast`: for weights, device -> a maker of the context that they run
    in. Raises UserError for a file that cannot be used.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path}: is neither a file nor a folder")  # reading a pipe may wait for ever
    model_format = detect_format(path)
    if model_format == "weights":
        from convmixer.backends.torch_runtime import open_weights

        return open_weights(path, hints, choose, device, autocast, entry)
    if entry is not None:
        raise UserError(f"--entry: names a network of a weight file; {path} is none")
    model = _open_exported(model_format, path, choose, device)
    arch = hints.arch
    if arch is not None and model.architecture is not None and parse_arch(arch).name != model.architecture.name:
        raise UserError(f"{path}: holds {model.architecture.name}, not {arch} as asked for")
    return model


def _open_exported(model_format: ModelFormat, path: str, choose: Chooser, device: DeviceRequest) -> ModelFile:
    if model_format == "onnx":
        with needed_for(path):
            from convmixer.backends.onnx.opening import open_onnx

            return open_onnx(path, choose, device)
    if model_format == "openvino":
        from convmixer.backends.openvino.opening import open_ir

        return open_ir(path, choose, device)
    if model_format == "torch_program":
        from convmixer.backends.torch_program import open_program

        return open_program(path, choose, device)
    if model_format == "executorch":
        from convmixer.backends.executorch import open_executorch

        return open_executorch(path, choose, device)
    from convmixer.backends.mindspore_runtime import open_mindspore

    return open_mindspore(path, choose)
