"""Plain Python values in place of the objects that other programs save beside their tensors; nothing of theirs is run.

NumPy's own functions are not used: what a pickle says of a dtype can make them read memory that is not theirs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from typing import Any

_FORMATS = {
    "b1": "?",
    "i1": "b",
    "u1": "B",
    "i2": "h",
    "u2": "H",
    "i4": "i",
    "u4": "I",
    "i8": "q",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}


_TEXT_MAX = 4096  # a pickle may ask for the same text a hundred thousand times


class Opaque:
    """An object of which nothing is kept."""

    def __new__(cls, *_: object, **__: object) -> Opaque:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Dtype:
    """The letters and the byte order of a NumPy dtype."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = code if isinstance(code, str) else "", "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def numpy_scalar(dtype: object, content: object = None) -> Any:
    """The number or text of a NumPy scalar, or None for one of another kind."""
    if not isinstance(dtype, Dtype) or not isinstance(content, bytes) or len(content) > _TEXT_MAX:
        return None
    if dtype.code.startswith("U"):
        return content.decode("utf-32-le" if dtype.order == "<" else "utf-32-be", errors="replace").rstrip("\0")
    form = dtype.order + _FORMATS.get(dtype.code, "")
    return struct.unpack(form, content)[0] if len(content) == struct.calcsize(form) > 0 else None


def path_text(*parts: object) -> str:
    """A path of pathlib as text; empty for one that no system has."""
    texts = [part for part in parts[:_TEXT_MAX] if isinstance(part, str)]
    if not texts or sum(map(len, texts)) > _TEXT_MAX:
        return ""
    first, *rest = texts
    return first + ("" if not rest or first.endswith(("/", "\\")) else "/") + "/".join(rest)


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


_BY_NAME: tuple[tuple[re.Pattern[str], Callable[..., Any]], ...] = tuple(
    (re.compile(pattern), made)
    for pattern, made in (
        (r"numpy\.dtype", Dtype),
        (r"numpy\._?core\.multiarray\.scalar", numpy_scalar),
        (r"numpy\._?core\.(?:multiarray\._reconstruct|numeric\._frombuffer)|numpy\.ndarray", Opaque),
        (r"pathlib\.(?:_local\.)?(?:Pure)?(?:Posix|Windows)?Path", path_text),
        (r"collections\.defaultdict", _empty_dict),
        (r"builtins\.(?:list|dict|tuple|frozenset|int|float|str|bool)", Opaque),
        (r"argparse\.Namespace|types\.SimpleNamespace|datetime\.\w+|typing\.Any|omegaconf\.[\w.]+", Opaque),
    )
)


def stand_in(name: str) -> Callable[..., Any] | None:
    """What is built in place of a global, or None where it has no harmless form."""
    return next((made for pattern, made in _BY_NAME if pattern.fullmatch(name)), None)


def stand_ins(names: Iterable[str]) -> list[tuple[Callable[..., Any], str]]:
    """The pairs that torch.serialization.safe_globals takes, for those of the names that have one."""
    return [(made, name) for name in names if (made := stand_in(name)) is not None]
