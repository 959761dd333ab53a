"""Files of torch.save: a zip archive, or before torch 1.6 a row of pickles. Nothing in them is ever executed."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import UserError
from convmixer.weights.entries import mappings_of
from convmixer.weights.pickles import PickleError, is_of_tensors, make_fit
from convmixer.weights.stand_ins import Opaque, stand_in, stand_ins

# The number that the files before torch 1.6 begin with, as a pickle has it.
_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES = 5  # that number, torch's protocol, the machine, the object, the names of its storages
_FROM_BYTES = "torch.storage._load_from_bytes"  # what pickle.dump makes of a tensor's memory
# Bytes of an archive's directory; that of 20,000 tensors has 3 million.
_DIRECTORY_MAX = 4_000_000
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"


def _check_members(path: Path) -> str:
    """Refuse an archive whose members are not what torch.save writes, before any of them is read.

    torch.save compresses nothing. A member that is compressed, or members that add up to more than the file, would
    fill the memory from a small file. Returns the name of the pickle.
    """
    try:
        if _directory_bytes(path) > _DIRECTORY_MAX:
            raise UserError(f"{path}: an archive of far more tensors than a ConvMixer has; save the state_dict alone.")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        raise UserError(f"{path}: a truncated or damaged archive; fetch or save it again.") from None
    names = {Path(member.filename).name for member in members}
    pickles = [member.filename for member in members if Path(member.filename).name == "data.pkl"]
    if not pickles:
        raise UserError(f"{path}: a zip archive, but not one of torch.save; no weights are in it.")
    if "constants.pkl" in names:
        raise UserError(f"{path}: a TorchScript program, which is not run; save the state_dict instead.")
    unpacked = sum(member.file_size for member in members)
    if unpacked > path.stat().st_size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(
            f"{path}: refused: its {path.stat().st_size} bytes unpack to {unpacked}, and torch.save packs nothing; "
            "save the state_dict again with torch.save."
        )
    if len(pickles) > 1:
        raise UserError(f"{path}: refused: an archive with {len(pickles)} pickles, torch.save writes one.")
    return pickles[0]


def _directory_bytes(path: Path) -> int:
    """Size of a zip archive's directory as its last record says, which is what readers go by; 0 where there is none."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 66_000), io.SEEK_END)
        tail = file.read()
    at = len(tail) - 22 if tail[-22:].startswith(_END) else tail.rfind(_END)
    if at < 0:
        return 0
    wide = tail[max(at - 76, 0) : max(at - 20, 0)]  # the record that large archives have before it
    if wide.startswith(_END_64):
        return int.from_bytes(wide[40:48], "little")
    return int.from_bytes(tail[at + 12 : at + 16], "little")


def load_plain(path: Path, *, zipped: bool = True) -> Any:
    """Content of a file of torch.save that holds tensors and plain values only. Raises UserError."""
    try:
        if zipped:
            return _load_archive(path, _check_members(path))
        return _load_pickles(path.read_bytes())
    except UserError:
        raise
    except _ForeignError as error:
        raise UserError(
            f"{path}: refused: it asks to run or build {error}, which weights never need; "
            "save the state_dict alone: torch.save(model.state_dict(), path)."
        ) from None
    except PickleError as error:
        raise UserError(f"{path}: {error}.") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: a damaged or unknown pickle; fetch or save it again.") from None
    except Exception:
        # torch has no error of its own for a damaged file: RuntimeError, EOFError, KeyError, struct.error and others.
        raise UserError(
            f"{path}: a truncated or damaged PyTorch file, or a pickle of another program; fetch or save it again."
        ) from None


class _ForeignError(Exception):
    """The name of something that no tensor is made of."""


def _load_archive(path: Path, pickle_name: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        content = archive.read(pickle_name)
        fit = make_fit(content)
        if fit.content == content:
            return _load(path, fit.names)
        changed = io.BytesIO()
        with zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as target:
            for name in archive.namelist():
                target.writestr(name, fit.content if name == pickle_name else archive.read(name))
    return _load(changed, fit.names)


def _load_pickles(content: bytes) -> Any:
    """A file from before torch 1.6, or what pickle.dump wrote."""
    if _LEGACY in content[:64]:
        parts, names, at = [], [], 0
        for _ in range(_LEGACY_PICKLES):
            fit = make_fit(content, at)
            parts.append(fit.content)
            names += fit.names
            at = fit.end
        return _load(io.BytesIO(b"".join([*parts, content[at:]])), names)
    fit = make_fit(content)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", fit.content)
        archive.writestr("archive/version", "3")
    return _load(packed, fit.names)


def _load(file: Path | io.BytesIO, names: list[str]) -> Any:
    """What torch's weights_only reader makes of it, once each global that the pickle asks for is found harmless."""
    for name in names:
        if not is_of_tensors(name) and stand_in(name) is None and name != _FROM_BYTES:
            raise _ForeignError(name)
    allowed: list[tuple[Callable[..., Any], str]] = stand_ins(names)
    if _FROM_BYTES in names:
        allowed.append((_within(file), _FROM_BYTES))
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # on storages of older versions
        return torch.load(file, map_location="cpu", weights_only=True)


def _within(file: Path | io.BytesIO) -> Callable[[bytes], Any]:
    """A reader of what pickle.dump makes of tensors' memory, for as many bytes in all as the file has."""
    left = file.getbuffer().nbytes if isinstance(file, io.BytesIO) else file.stat().st_size

    def from_bytes(content: bytes) -> Any:
        nonlocal left
        left -= len(content)
        if left < 0:
            raise PickleError("its pickle unpacks to more than it holds, which no weights do")
        return _load_pickles(content)

    return from_bytes


def _check_tensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse what is no plain tensor, or claims more elements than the file has bytes for."""
    storages: dict[int, int] = {}
    for name, value in state.items():
        plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {name!r} is not stored as a plain dense tensor; save the state_dict again.")
        storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    if sum(storages.values()) > path.stat().st_size:
        raise UserError(
            f"{path}: a damaged PyTorch file: its tensors are larger than the file; fetch or save it again."
        )


def read_torch_file(path: Path, *, zipped: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the file holds by name, and the plain values among it (epoch, arch ...).

    Raises UserError for a file that is damaged, that would unpack to more than its size, or that holds more than data.
    """
    content = load_plain(path, zipped=zipped)
    if not isinstance(content, Mapping):
        content_type = "value of another program" if isinstance(content, Opaque) else type(content).__name__
        raise UserError(f"{path}: holds a {content_type}, not a state_dict; no weights are in it.")
    tensors = {".".join((*location, name)): t for location, held in mappings_of(content) for name, t in held.items()}
    _check_tensors(path, tensors)
    named = {str(name): value for name, value in content.items()}
    return named, {name: value for name, value in named.items() if isinstance(value, str | int | float)}
