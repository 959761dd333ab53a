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

ModelFormat = Literal["onnx", "mindir", "weights"]

# Protobuf: `ir_version`, a small number, and then the tag of another field of ModelProto.
_ONNX = re.compile(rb"\x08[\x01-\x7f][\x12\x1a\x22\x28\x32\x3a\x42\x72]")
# The same fields in MindSpore's ModelProto, where the version and the producer are text.
_MINDIR = re.compile(rb"\x0a.[0-9.]+\x12.MindSpore", re.DOTALL)


def detect_format(path: str | os.PathLike[str]) -> ModelFormat:
    """The format of a model file, by its content, and by its ending where that does not say."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        head = b""  # a folder, or nothing: the reader says what is wrong with it
    if _ONNX.match(head):
        return "onnx"
    if _MINDIR.match(head):
        return "mindir"
    endings: dict[str, ModelFormat] = {".onnx": "onnx", ".mindir": "mindir"}
    return "weights" if path.is_dir() else endings.get(path.suffix.lower(), "weights")


def open_model(
    path: str,
    choose: Chooser,
    device: DeviceRequest,
    hints: ArchitectureHints = ArchitectureHints(),  # noqa: B008  (frozen)
    *,
    autocast: Callable[[torch.device], Any] | None = None,
    entry: str | None = None,
) -> ModelFile:
    """Open a weight file of any layout, a checkpoint folder, an ONNX or a MINDIR file.

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
    if model_format == "onnx":
        with needed_for(path):
            from convmixer.backends.onnx.opening import open_onnx

            model = open_onnx(path, choose, device)
    else:
        from convmixer.backends.mindspore_runtime import open_mindspore

        model = open_mindspore(path, choose)
    arch = hints.arch
    if arch is not None and model.architecture is not None and parse_arch(arch).name != model.architecture.name:
        raise UserError(f"{path}: holds {model.architecture.name}, not {arch} as asked for")
    return model
