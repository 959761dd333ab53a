"""Files of torch.save: a zip archive, or before torch 1.6 a row of pickles. Nothing in them is ever executed."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import UserError

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
# timm's training loop, which the authors used, saves the averaged weights beside the plain ones.
_STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


def _check_members(path: Path) -> None:
    """Refuse an archive whose members are not what torch.save writes, before any of them is read.

    torch.save compresses nothing. A member that is compressed, or members that add up to more than the file, would
    fill the memory from a small file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        raise UserError(f"{path}: a truncated or damaged archive; fetch or save it again.") from None
    names = {Path(member.filename).name for member in members}
    if "data.pkl" not in names:
        raise UserError(f"{path}: a zip archive, but not one of torch.save; no weights are in it.")
    if "constants.pkl" in names:
        raise UserError(f"{path}: a TorchScript program, which is not run; save the state_dict instead.")
    unpacked = sum(member.file_size for member in members)
    if unpacked > path.stat().st_size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(
            f"{path}: refused: its {path.stat().st_size} bytes unpack to {unpacked}, and torch.save packs nothing; "
            "save the state_dict again with torch.save."
        )


def load_plain(path: Path, *, zipped: bool = True) -> Any:
    """Content of a file of torch.save that holds tensors and plain values only. Raises UserError."""
    if zipped:
        _check_members(path)
    try:
        # A namespace holds plain attributes and runs nothing; timm keeps the training's options in one.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of a newer protocol, which are refused below if need be
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        if found is None:
            raise UserError(f"{path}: a damaged or unknown pickle; fetch or save it again.") from None
        raise UserError(
            f"{path}: refused: it asks to run or build {found[1]}, which weights never need; "
            "save the state_dict alone: torch.save(model.state_dict(), path)."
        ) from None
    except Exception:
        # torch has no error of its own for a damaged file: RuntimeError, EOFError, KeyError, struct.error and others.
        raise UserError(
            f"{path}: a truncated or damaged PyTorch file, or a pickle of another program; fetch or save it again."
        ) from None


def _check_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Refuse what is no plain tensor, or claims more elements than the file has bytes for."""
    storages: dict[int, int] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {name!r} is no tensor; a state_dict holds tensors by name.")
        plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {name!r} is not stored as a plain dense tensor; save the state_dict again.")
        storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    if sum(storages.values()) > path.stat().st_size:
        raise UserError(
            f"{path}: a damaged PyTorch file: its tensors are larger than the file; fetch or save it again."
        )


def read_torch_file(path: Path, *, zipped: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name, as stored, and the plain values beside them (epoch, arch ...).

    The state dict is the file itself or one of its entries; averaged weights come before plain ones. Raises UserError
    for a file that is damaged, that would unpack to more than its size, or that holds more than data.
    """
    content = load_plain(path, zipped=zipped)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state_dict; no weights are in it.")
    values = {str(name): value for name, value in content.items() if isinstance(value, str | int | float)}
    key = next((key for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), None)
    if key is not None:
        state = dict(content[key])
        values["entry"] = key
    else:
        state = {name: value for name, value in content.items() if str(name) not in values}
    _check_tensors(path, state)
    return {name: value.detach() for name, value in state.items()}, values
