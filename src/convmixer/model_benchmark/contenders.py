"""The model files that are compared: opened, each in every engine that runs it here, or with the reason why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmixer.backends.model_file import ModelFile
from convmixer.backends.opening import detect_format
from convmixer.backends.runtime import Tunable
from convmixer.config.resolved import Resolved
from convmixer.errors import UserError
from convmixer.model_opening import open_for_evaluation

if TYPE_CHECKING:
    from convmixer.config.schema import BenchmarkConfig

logger = logging.getLogger(__name__)

_ENGINES = {"weights": "torch", "openvino": "openvino", "executorch": "executorch", "mindir": "mindspore"}


@dataclass(frozen=True)
class Contender:
    """An opened file in an engine. `bytes`: of all files that it consists of."""

    file: str
    engine: str
    bytes: int
    model: ModelFile


@dataclass(frozen=True)
class Failure:
    """A file that is not in the comparison, in this engine, and why."""

    file: str
    engine: str
    reason: str


def contenders(resolved: Resolved[BenchmarkConfig]) -> tuple[list[Contender], list[Failure]]:
    """All files of the command line in all their engines: those that could be opened, and those that could not."""
    options = resolved.options
    files = [*options.files, *([options.pretrained] if options.pretrained is not None else [])]
    if not files:
        raise UserError("FILES: model files are needed, as in convmixer benchmark runs/best flowers.onnx")
    opened, failed = list[Contender](), list[Failure]()
    for file in dict.fromkeys(files):
        for engine in _engines(file):
            try:
                opened.append(_opened(resolved, file, engine))
            except UserError as error:
                failed.append(Failure(file, engine, str(error)))
            except ModuleNotFoundError as error:  # torch, without which all but weights and its own files run
                failed.append(Failure(file, engine, f"{error.name} is not installed"))
    return opened, failed


def _engines(file: str) -> Iterator[str]:
    found = detect_format(file)
    if found == "onnx":
        yield "onnxruntime"
        if find_spec("openvino") is not None:
            yield "openvino"
    elif found == "torch_program":
        yield "torch aoti" if _is_compiled(Path(file)) else "torch export"
    else:
        yield _ENGINES[found]


def _is_compiled(file: Path) -> bool:
    with file.open("rb") as opened:
        return b"/data/aotinductor/" in opened.read(1024)


def _opened(resolved: Resolved[Any], file: str, engine: str) -> Contender:
    options = resolved.options
    model = open_for_evaluation(resolved, file, engine="openvino" if engine == "openvino" else "onnxruntime")
    if isinstance(model.runtime, Tunable):
        size = model.preprocessing.size
        # For as many images as are timed: a choice among the backends pays where the user asks for it.
        model.runtime.tune(1, options.batch_size, size, options.requested_execution)
    return Contender(file, engine, _bytes(model.path or Path(file)), model)


def _bytes(file: Path) -> int:
    parts = [file]
    if detect_format(file) == "openvino":
        parts.append(file.with_suffix(".bin"))
    total = sum(part.stat().st_size for part in parts)
    if detect_format(file) == "onnx":
        from convmixer.backends.onnx.external_data import external_bytes

        total += external_bytes(file)
    return total
