"""How valid input becomes hostile: strategies of hypothesis over bytes, JSON, YAML and command lines."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# Sizes and counts around which readers go wrong.
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
PNG = b"\x89PNG\r\n\x1a\n"
# Pickles that make a folder called FUZZED when they are loaded by a loader that executes.
PICKLES = (
    b"\x80\x02cposix\nmkdir\nX\x06\x00\x00\x00FUZZED\x85R.",
    b"cposix\nmkdir\n(VFUZZED\ntR.",
    b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x05mkdir\x93\x8c\x06FUZZED\x85R.",
)


@st.composite
def damaged(draw: Any, seeds: Sequence[bytes], edits: int = 5) -> bytes:
    """One of the seeds with up to `edits` damages: bits, bytes, numbers, lost, doubled, foreign or cut parts."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, edits))):
        size = len(content)
        # Half of the damage goes to the head, where formats keep what their readers trust.
        at = draw(st.integers(0, min(size, 64)) | st.integers(0, size))
        match draw(st.sampled_from(("bit", "byte", "number", "cut", "lose", "double", "insert", "splice", "close"))):
            case "bit" if at < size:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if at < size:
                content[at] = draw(st.integers(0, 255))
            case "number":
                form = draw(st.sampled_from((">H", "<H", ">I", "<I", ">Q", "<Q")))
                value = draw(st.sampled_from(NUMBERS)) & (256 ** struct.calcsize(form) - 1)
                content[at : at + struct.calcsize(form)] = struct.pack(form, value)
            case "cut":
                del content[at:]
            case "lose":
                del content[at : at + draw(st.integers(1, 64))]
            case "double":
                content[at:at] = content[at : at + draw(st.integers(1, 256))]
            case "insert":
                content[at:at] = draw(st.binary(max_size=16))
            case "splice":
                other = draw(st.sampled_from(seeds))
                content[at:] = other[draw(st.integers(0, len(other))) :]
            case "close":
                content += draw(st.sampled_from((b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82", b";", b"\0" * 32)))
    return bytes(content)


@st.composite
def damaged_images(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """As `damaged`; of a PNG the checksums are made right again in half of the cases, or no damage would get far."""
    content = draw(damaged(seeds))
    return _with_right_checksums(content) if content.startswith(PNG) and draw(st.booleans()) else content


def _with_right_checksums(png: bytes) -> bytes:
    out, at = bytearray(png), len(PNG)
    while at + 12 <= len(out):
        length = int.from_bytes(out[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


# Values as a hostile JSON or YAML file may have them.
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from((*NUMBERS, -1, 10**400))
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(("", "../../x", "/etc/passwd", "a\0b", "x" * 5000, "\x1b[31m", "nan", "bicubic", "gelu")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed_json(draw: Any, base: Any) -> Any:
    """A JSON value with one or more of its parts, at any depth, replaced, lost or added."""
    value = json.loads(json.dumps(base))
    for _ in range(draw(st.integers(1, 3))):
        place = value
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                if draw(st.integers(0, 4)) == 0:
                    del place[key]
                else:
                    place[key] = draw(plain_values)
                break
            place = place[key]
    return value


def json_texts(base: Any) -> st.SearchStrategy[bytes]:
    """JSON of a changed value, damaged JSON, or brackets as deep as a reader can be made to go."""
    whole = json.dumps(base).encode()
    deep = st.integers(1, 200_000).map(lambda depth: b"[" * depth) | st.just(b'{"a":' * 100_000)
    return changed_json(base).map(lambda value: json.dumps(value).encode()) | damaged([whole]) | deep


_SCALARS = (
    "!!python/object/apply:posix.mkdir [FUZZED]",
    "!!python/object/new:posix.mkdir [FUZZED]",
    "!!python/name:posix.mkdir",
    "!!binary //8=",
    "!!timestamp 2001-99-99",
    "2001-99-99",
    "2001-12-14t21:59:43.10-99:00",
    "0x" + "f" * 5000,
    "1" * 5000,
    "0b12",
    "190:20:30",
    "1e999999",
    ".inf",
    "-.inf",
    ".nan",
    "~",
    "yes",
    "{}",
    "[]",
    "&a [*a, *a]",
    "*nowhere",
    "!unknown x",
    '"\\ud800"',
    '"\\0\\e[31m"',
    "? [a, b]",
    "|",
    ">-",
    "- - -",
    "<<: 3",
)
# A few lines whose aliases stand for 6**22 values ("billion laughs").
_BOMB = "\n  - &a0 [x, x]\n" + "".join(f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 6)}]\n" for i in range(1, 23))


def yaml_texts(recipes: Sequence[bytes], keys: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Damaged recipes, and files of known and unknown keys with values of any kind."""
    scalars = st.sampled_from(_SCALARS) | st.text(max_size=20) | plain_values.map(lambda v: json.dumps(v, default=str))
    lines = st.tuples(st.sampled_from(keys) | st.text(max_size=6), scalars).map(lambda line: f"{line[0]}: {line[1]}")
    files = st.lists(lines, min_size=1, max_size=4).map("\n".join)
    bombs = st.sampled_from(keys).map(lambda key: f"{key}:{_BOMB}")
    own = st.sampled_from(keys).map(lambda key: f"{key}: &a [*a]\n")
    deep = st.tuples(st.sampled_from(("[", "{a: ", "- ", "? ")), st.integers(1, 3000)).map(lambda d: d[0] * d[1])
    texts = files | bombs | own | deep
    return damaged(recipes) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


def command_lines(names: Sequence[str], values: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Words of a command line: known and misspelt options, values of any kind."""
    name = st.sampled_from(names)
    value = st.sampled_from((*values, "", "-", "--", "-1", "1e999", "nan", "9" * 5000, "a,b", "\x1b[31m\n", "\udcff"))
    value |= st.text(max_size=12) | st.sampled_from(NUMBERS).map(str)
    word = (
        name.map(lambda n: f"--{n}")
        | st.tuples(name, value).map(lambda pair: f"--{pair[0]}={pair[1]}")
        | st.tuples(name, st.integers(0, 8)).map(lambda pair: f"--{pair[0][: pair[1]]}-{pair[0][pair[1] :]}")
        | st.text(max_size=6).map(lambda text: f"-{text}")
        | value
    )
    pair = st.tuples(name.map(lambda n: f"--{n}"), value).map(list)
    return st.lists(word.map(lambda w: [w]) | pair, max_size=5).map(lambda parts: [w for part in parts for w in part])


def policies() -> st.SearchStrategy[str]:
    """Specs of augmentation: known sections with odd numbers, and any text between dashes."""
    key = st.sampled_from(("m", "n", "p", "mstd", "mmax", "inc", "t", "w", ""))
    number = st.sampled_from(
        ("", "0", "1", "9", "0.5", "-1", "1.", "3a", "weights", "٣", "²", "9" * 400, "9" * 8, "1e9", "\n")
    )
    section = st.tuples(key, number).map("".join) | st.tuples(key, st.integers().map(str)).map("".join)
    section |= st.text(max_size=5)
    first = st.sampled_from(
        ("rand", "rand", "rand", "original", "originalr", "v0", "v0r", "3a", "augmix", "")
    ) | st.text(max_size=5)
    return st.tuples(first, st.lists(section, max_size=5)).map(lambda parts: "-".join([parts[0], *parts[1]]))
