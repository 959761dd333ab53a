"""torch's .pt2 archives: programs of torch.export, which are looked through first, and compiled ones of AOTInductor.

torch.export.load trusts its file: it unpickles what the file says is pickled, has SymPy evaluate expressions, and lets
a graph call any function that has a name in the module torch. Here a program is refused unless it holds no such pickle,
no expression but sizes, and no call but of ATen's operators (torch 2.14, torch/_export/serde/serialize.py).
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convmixer.backends.graph_input import InputForm, form_of
from convmixer.backends.graph_runtime import GraphRuntime, chosen_preprocessing
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.backends.probabilities import random_image
from convmixer.errors import UserError, first_line
from convmixer.metadata import KEY, ModelMetadata, decode_metadata

_COMPILED = "data/aotinductor/"
_OPERATOR = re.compile(r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+")  # that one opens files
_SIZE = re.compile(r"-?\d+|s\d+|(\d+\*)?s\d+|Symbol\('s\d+'(, (positive|integer)=True)*\)")
_MAX_TEXT = 64 * 2**20  # bytes of the graph; that of 1536/20 has 0.4 million

_Members = dict[str, zipfile.ZipInfo]
# What the file says of itself, its input, and what runs it.
_Opened = tuple[ModelMetadata | None, InputForm, Callable[[torch.Tensor], Any]]


def open_program(path: str, choose: Chooser, request: DeviceRequest) -> ModelFile:
    """Open a .pt2 archive on the CPU; see `backends.opening.open_model`.

    Raises UserError for one that is damaged or holds more than a network, and for a compiled one where `request` does
    not allow native code.
    """
    if request.is_required and request.target not in (None, "CPU"):
        raise UserError(f"--device_target: .pt2 files run on the CPU, not on {request.target}; leave the option out")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            if any(name.startswith(_COMPILED) for name in members):
                opened = _compiled(path, archive, members, request)
            else:
                opened = _program(path, archive, members)
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: a truncated or damaged .pt2 file; export it again") from None
    metadata, form, network = opened
    chosen = chosen_preprocessing(path, form, metadata, choose)
    runtime = GraphRuntime(path, _engine(network), form, metadata, chosen)
    return runtime.as_model(runtime.logits(random_image(chosen)))


def _members(path: str, archive: zipfile.ZipFile) -> _Members:
    """What the archive holds, by name below its only folder. Raises UserError where two readers could differ on it, or
    it would unpack to more than it is.

    torch's reader takes names in any case for the same.
    """
    infos = archive.infolist()
    packed = sum(info.file_size for info in infos) > Path(path).stat().st_size
    folders = {info.filename.partition("/")[0] for info in infos}
    if packed or len(folders) != 1 or len({info.filename.lower() for info in infos}) != len(infos):
        raise UserError(f"{path}: refused: it is packed as torch packs no file; export it again")
    return {info.filename.partition("/")[2]: info for info in infos}


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    if info.file_size > _MAX_TEXT:
        raise ValueError("larger than any network's")
    return archive.read(info).decode()


def _program(path: str, archive: zipfile.ZipFile, members: _Members) -> _Opened:
    """The record, the input and the network of a program. Raises UserError for what is refused."""
    _look_through(path, archive, members)
    record = members.get(f"extra/{KEY}")
    metadata = None if record is None else _decoded(path, _text(archive, record))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path if path.endswith(".pt2") else io.BytesIO(Path(path).read_bytes()))
    except Exception as error:  # torch has no error of its own for a damaged file
        raise UserError(f"{path}: torch cannot read it: {first_line(error)}") from None
    inputs = [_Input(node.name, node.meta["val"]) for node in program.graph.nodes if node.name in _user_inputs(program)]
    return metadata, form_of(path, inputs), program.module()


class _Input:
    """An input of a program as `form_of` wants it."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.shape = name, [side if isinstance(side, int) else None for side in value.shape]
        self.type = {torch.float32: "f32", torch.float16: "f16", torch.uint8: "u8"}.get(value.dtype, str(value.dtype))


def _user_inputs(program: torch.export.ExportedProgram) -> set[str]:
    return {str(name) for name in program.graph_signature.user_inputs}


def _look_through(path: str, archive: zipfile.ZipFile, members: _Members) -> None:
    """Raise UserError for a program whose reading or running could do more than compute."""
    graphs = [info for name, info in members.items() if name.startswith("models/")]
    if len(graphs) != 1:
        raise UserError(f"{path}: holds {len(graphs)} programs; one is run")
    for name, info in members.items():
        if name.endswith("_config.json"):
            entries = json.loads(_text(archive, info))["config"].values()
            if any(
                entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")) for entry in entries
            ):
                raise UserError(f"{path}: refused: a part of its weights is a pickle, which could run anything")
        elif name.startswith(("data/weights/", "data/constants/")) and name.endswith(".pt"):
            raise UserError(f"{path}: refused: its weights are a pickle, of an older torch; export it again")
        elif name.startswith("data/sample_inputs/") and info.file_size:
            try:
                torch.load(io.BytesIO(archive.read(info)), weights_only=True)
            except Exception:  # torch would then read it in the way that runs whatever it says
                raise UserError(f"{path}: refused: its examples are a pickle of more than tensors") from None
    for key, value in _entries(json.loads(_text(archive, graphs[0]))):
        if key == "target" and isinstance(value, str) and not _OPERATOR.fullmatch(value):
            raise UserError(f"{path}: refused: it calls {value[:80]}, which is no operator of ATen")
        if key == "expr_str" and not (isinstance(value, str) and _SIZE.fullmatch(value)):
            raise UserError(f"{path}: refused: it computes a size by {str(value)[:80]!r}")
        if key == "guards_code" and value:
            raise UserError(f"{path}: refused: it holds code of Python")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """All pairs of key and value within plain JSON, however deep."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _compiled(path: str, archive: zipfile.ZipFile, members: _Members, request: DeviceRequest) -> _Opened:
    if not request.native_code:
        raise UserError(
            f"{path}: is machine code, which can do whatever you can do; --native_code runs it, if you trust it"
        )
    texts = [_text(archive, info) for name, info in members.items() if name.endswith("wrapper_metadata.json")]
    record = json.loads(texts[0]).get(KEY) if texts else None
    if record is None:
        raise UserError(f"{path}: was compiled by another program, and does not say what it takes; export it here")
    metadata = _decoded(path, record)
    try:
        network = torch._inductor.aoti_load_package(path)
    except Exception as error:  # whatever the loader of libraries raises
        raise UserError(f"{path}: cannot be loaded on this machine: {first_line(error)}") from None
    size = metadata.known_preprocessing.size
    form = InputForm("images", np.float32, False, None, metadata.architecture.in_chans, size)
    return metadata, form, network


def _decoded(path: str, text: str) -> ModelMetadata:
    try:
        return decode_metadata(text)
    except ValueError as error:
        raise UserError(f"{path}: a damaged .pt2 file: {error}") from None


def _engine(network: Callable[[torch.Tensor], Any]) -> Callable[[np.ndarray], object]:
    def run(batch: np.ndarray) -> object:
        with torch.inference_mode():
            out = network(torch.from_numpy(np.ascontiguousarray(batch)))
        out = out[0] if isinstance(out, tuple | list) else out
        return out.float().numpy() if isinstance(out, torch.Tensor) else out

    return run
