"""Pickles before torch's reader sees them: what they ask for is compared with a list, newer protocols become the 2nd.

torch's weights_only reader knows protocol 2 alone, and builds a few things that fill the memory from a small file. Here
a pickle is only looked through, operation by operation (https://peps.python.org/pep-3154/); nothing of it is run.
"""

from __future__ import annotations

import pickletools
import re
import struct
from dataclasses import dataclass, field
from typing import IO, cast

# About 25 per tensor: a ConvMixer of 200 blocks with Adam's moments and averages has 11,000 tensors.
OPERATIONS_MAX = 400_000
_NAME_MAX = 200
_ENCODED_MAX = 256 * 2**20  # bytes

_LONGS_MAX = 10_000  # a thousand are a generator's state; many of one hash make a dictionary slow

# What dense tensors are made of. All else of torch's own list is left out: it converts, copies or allocates, and a
# pickle may ask for the same thing a hundred thousand times.
_OF_TENSORS = re.compile(
    r"collections\.OrderedDict|_codecs\.encode|builtins\.complex"
    r"|torch\.(?:\w+Storage|device|bool|[a-z]+\d\w*)|torch\.nn\.parameter\.Parameter"
    r"|torch\._utils\._rebuild_(?:tensor|tensor_v2|parameter|parameter_with_state)"
)
# Plain values that torch would make as large and as often as it is told to; they become one that is left out.
_LEFT_OUT = ("builtins.bytearray", "builtins.set", "collections.Counter", "torch.Size")
_NOTHING = ("builtins", "frozenset")
_ORDERED = "collections.OrderedDict"


class PickleError(ValueError):
    """A pickle that is not given to torch; the message says why, after the file's name."""


def is_of_tensors(name: str) -> bool:
    """Whether a global belongs to what tensors and plain containers are made of."""
    return _OF_TENSORS.fullmatch(name) is not None


@dataclass
class Fit:
    """`content`: the pickle in protocol 2. `end`: where it ends in what was read. `names`: the globals it asks for."""

    content: bytes
    end: int
    names: list[str]


def make_fit(data: bytes, at: int = 0) -> Fit:
    """The pickle that starts at `at`, in protocol 2; as it is where it is of that protocol.

    Sets become lists and bytearrays bytes. Raises PickleError where it is no pickle, holds what has no form in
    protocol 2, or is larger than any weights need.
    """
    rewriter = _Rewriter(data)
    try:
        window = cast(IO[bytes], _Window(data, at))
        for count, (operation, argument, found_at) in enumerate(pickletools.genops(window)):
            position = cast(int, found_at)
            if count > OPERATIONS_MAX:
                raise PickleError("its pickle describes far more than a ConvMixer has; save the state_dict alone")
            rewriter.take(operation.name, argument, position)
            end = position + 1
    except PickleError:
        raise
    except Exception:
        # pickletools has no error of its own: ValueError, UnicodeDecodeError, struct.error, OverflowError.
        raise PickleError("a damaged or unknown pickle; fetch or save it again") from None
    rewriter.finish(end)
    names = list(rewriter.names)
    if "_codecs.encode" in names and rewriter.calls * rewriter.max_text > _ENCODED_MAX:
        raise PickleError("its pickle unpacks to more than it holds, which no weights do")
    return Fit(bytes(rewriter.out) if rewriter.changed else data[at:end], end, names)


class _Window:
    """The rest of some bytes as the file that pickletools reads, without a copy of it."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._at) + 1 or len(self._data)
        return self.read(end - self._at)


@dataclass
class _Rewriter:
    """Takes a pickle's operations one by one and writes them in protocol 2."""

    data: bytes
    out: bytearray = field(default_factory=bytearray)
    names: dict[str, None] = field(default_factory=dict)
    changed: bool = False
    calls: int = 0
    max_text: int = 0
    _texts: list[tuple[int, str, list[int]]] = field(default_factory=list)
    """The texts pushed last, from which STACK_GLOBAL takes its names: start in `out`, text, where it was put."""
    _memo: dict[int, str | None] = field(default_factory=dict)
    """What was put where, texts only; None for all else."""
    _lost: set[int] = field(default_factory=set)
    """Texts in the memo whose pushing was taken back for a GLOBAL."""
    _copy_from: int | None = None
    _ordered: bool = False
    """Whether OrderedDict was pushed last."""
    _ordered_at: set[int] = field(default_factory=set)
    """Where it was put."""
    _longs: int = 0

    def take(self, name: str, argument: object, position: int) -> None:
        self.finish(position)
        self._watch(name)
        handler = getattr(self, f"_{name.lower()}", None)
        if isinstance(argument, str) and name.endswith(("UNICODE", "UNICODE8")):
            self._text(str(argument))
        elif isinstance(argument, bytes | bytearray) and name.endswith(("BYTES", "BYTES8", "BYTEARRAY8")):
            self._bytes(bytes(argument))
        elif handler is not None:
            handler(argument)
        elif name in ("LONG4", "NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER"):
            raise PickleError(f"its pickle has a {name}, which weights never need; save the state_dict alone")
        else:
            self.calls += name == "REDUCE"
            self._texts.clear()
            self._copy_from = position

    def _watch(self, name: str) -> None:
        """Refuse what only a hostile pickle does. An OrderedDict is made empty and filled then, never from another."""
        self._longs += name == "LONG1"
        if self._longs > _LONGS_MAX:
            raise PickleError("its pickle has more large numbers than any weights")
        if self._ordered and name not in ("EMPTY_TUPLE", "BINPUT", "LONG_BINPUT", "MEMOIZE", "FRAME"):
            raise PickleError("its pickle makes dictionaries as torch.save never does; save the state_dict again")
        if name == "EMPTY_TUPLE":
            self._ordered = False

    def finish(self, position: int) -> None:
        """Copy the operation before `position`, where it stays what it is."""
        if self._copy_from is not None:
            self.out += self.data[self._copy_from : position]
            self._copy_from = None

    def _proto(self, argument: object) -> None:
        self.changed = argument != 2
        self.out += b"\x80\x02"

    def _frame(self, argument: object) -> None:
        """Only tells how much may be read at once."""

    def _memoize(self, argument: object) -> None:
        self._put(len(self._memo))

    def _binput(self, argument: object) -> None:
        assert isinstance(argument, int)
        self._put(argument)

    _long_binput = _binput

    def _put(self, index: int) -> None:
        # A text is on top where it was the last to be pushed; an operation since then has cleared the list.
        self._memo[index] = self._texts[-1][1] if self._texts else None
        if self._texts:
            self._texts[-1][2].append(index)
        self._lost.discard(index)
        (self._ordered_at.add if self._ordered else self._ordered_at.discard)(index)
        self.out += b"r" + struct.pack("<I", index)

    def _binget(self, argument: object) -> None:
        assert isinstance(argument, int)
        text = self._memo.get(argument)
        self._ordered = argument in self._ordered_at
        if text is None:
            self._texts.clear()
        elif argument in self._lost:
            self._text(text)
            return
        else:
            self._texts.append((len(self.out), text, []))
        self.out += b"j" + struct.pack("<I", argument)

    _long_binget = _binget

    def _text(self, text: str) -> None:
        self._texts.append((len(self.out), text, []))
        self._push(text)

    def _push(self, text: str) -> None:
        encoded = text.encode("utf-8", "surrogatepass")
        self.max_text = max(self.max_text, len(encoded))
        self.out += b"X" + struct.pack("<I", len(encoded)) + encoded

    def _bytes(self, content: bytes) -> None:
        """As protocol 2 has bytes: a text in Latin-1 that is encoded."""
        self._texts.clear()
        self.out += b"c_codecs\nencode\n"
        max_text = self.max_text
        self._push(content.decode("latin-1"))
        self._push("latin1")
        self.max_text = max_text  # each is made once, from as many bytes in the file
        self.out += b"\x86R"

    def _global(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self._ask_for(module, name)

    def _stack_global(self, argument: object) -> None:
        if len(self._texts) < 2:
            raise PickleError("a damaged or unknown pickle; fetch or save it again")
        (start, module, puts), (_, name, others) = self._texts[-2:]
        del self.out[start:]
        self._lost.update(puts, others)
        self._ask_for(module, name)

    def _ask_for(self, module: str, name: str) -> None:
        if len(module) + len(name) > _NAME_MAX or "\n" in module + name:
            raise PickleError("a damaged or unknown pickle; fetch or save it again")
        self._texts.clear()
        module = module.replace("__builtin__", "builtins")
        if f"{module}.{name}" in _LEFT_OUT:
            (module, name), self.changed = _NOTHING, True
        self._ordered = f"{module}.{name}" == _ORDERED
        self.names[f"{module}.{name}"] = None
        self.out += f"c{module}\n{name}\n".encode("utf-8", "surrogatepass")

    def _empty_set(self, argument: object) -> None:
        self._texts.clear()
        self.out += b"]"

    def _additems(self, argument: object) -> None:
        self._texts.clear()
        self.out += b"e"

    def _frozenset(self, argument: object) -> None:
        self._texts.clear()
        self.out += b"t"
