"""Weight files that ask for far more time or memory than they have bytes; run by test_limits in a process of its own.

`python hostile.py FOLDER` reads each file of FOLDER under a limit of memory and prints what came of it as JSON.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import zipfile
from pathlib import Path

COUNT = 400_000
GROWTH = 2**30  # bytes of address space beyond those of the libraries


def _archive_of_many(count: int) -> bytes:
    """A zip archive as torch.save packs it, of `count` empty storages."""
    local, central, at = [], [], 0
    for name in ["a/data.pkl", *(f"a/data/{i}" for i in range(count))]:
        encoded = name.encode()
        local.append(b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, len(encoded), 0) + encoded)
        fields = struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(encoded), 0, 0, 0, 0, 0, at)
        central.append(b"PK\x01\x02" + fields + encoded)
        at += len(local[-1])
    size = sum(map(len, central))
    wide = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count + 1, count + 1, size, at)
    wide = b"PK\x06\x06" + wide + b"PK\x06\x07" + struct.pack("<IQI", 0, at + size, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0)
    return b"".join([*local, *central, wide, end])


def _archive(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3")
        archive.writestr("a/data/0", b"\0" * 4)
    return file.getvalue()


def _tensors_of_one_storage(count: int) -> bytes:
    """A state_dict of `count` numbers that share four bytes."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0))\x89ccollections\nOrderedDict\n)RtR"
    entries = b"".join(b"X" + struct.pack("<I", len(name)) + name + tensor for name in _names(count))
    return _archive(b"\x80\x02}(" + entries + b"u.")


def _long(value: int) -> bytes:
    """All of them have the same hash."""
    return b"\x8a" + bytes([16]) + value.to_bytes(16, "little")


def _storages() -> bytes:
    """As pickle.dump keeps the memory of tensors, the same one over and over."""
    return (
        b"\x80\x02](ctorch.storage\n_load_from_bytes\nq\x01c_codecs\nencode\nX\x40\x42\x0f\0"
        + (b"\x80\x02](" + b"]" * 300_000 + b"e.").ljust(10**6, b"x").decode("latin-1").encode()[: 10**6]
        + b"X\x06\0\0\0latin1\x86Rq\x00"
        + b"h\x01h\0\x85R" * 10_000
        + b"e."
    )


def _names(count: int) -> list[bytes]:
    return [f"blocks.{i}.0.fn.0.weight".encode() for i in range(count)]


def _safetensors(entries: dict[str, list[int]]) -> bytes:
    header, at = {}, 0
    for name, shape in entries.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * at


def _checkpoint(tags: list[bytes], dims: bytes, content: bytes) -> bytes:
    tensor = dims + b"\x12\x07Float32\x1a" + _varint(len(content)) + content
    inner = [b"\x0a" + _varint(len(tag)) + tag + b"\x12" + _varint(len(tensor)) + tensor for tag in tags]
    return b"".join(b"\x0a" + _varint(len(value)) + value for value in inner)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# The stem, the first depthwise convolution and the head of a network of dim 30,000, whose pointwise ones take 3.6 GB.
_WIDE = {"stem.0.weight": [30_000, 1, 1, 1], "blocks.0.0.fn.0.weight": [30_000, 1, 1, 1], "head.weight": [2, 30_000]}
_DEEP = {"stem.0.weight": [1, 1, 1, 1], "head.weight": [1, 1]}


def write_all(folder: Path) -> None:
    """Each kind of hostile file, by the name of what is wrong with it."""
    text = b"\x80\x02](" + b"X" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"q\x00"
    encode = b"c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R"
    files: dict[str, bytes | str] = {
        "members.pth": _archive_of_many(COUNT),
        "tensors.pth": _tensors_of_one_storage(COUNT),
        "tensors.safetensors": _safetensors({name.decode(): [] for name in _names(COUNT)}),
        "blocks.safetensors": _safetensors(_DEEP | {name.decode(): [1, 1, 1, 1] for name in _names(19_000)}),
        "networks.safetensors": _safetensors({f"m{i}.blocks.0.0.fn.0.weight": [] for i in range(19_000)}),
        "wide.safetensors": _safetensors(_WIDE),
        "tensors.ckpt": _checkpoint([b"network." + name for name in _names(COUNT)], b"", b"\0" * 4),
        "dims.ckpt": _checkpoint([b"w"], b"\x0a" + _varint(20_000_000) + b"\x7f" * 20_000_000, b"\0" * 4),
        "parts.ckpt": _checkpoint([b"w"], b"\x12\0" * 10_000_000, b"\0" * 4),
        "bytearray.pth": _archive(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        "encoded.pth": _archive(text + encode * 30_000 + b"e."),
        "paths.pth": _archive(text + b"cpathlib\nPosixPath\nq\x01" + b"h\x01h\0\x85R" * 10_000 + b"e."),
        "sets.pth": _archive(
            b"\x80\x02](](" + b"K\0" * 9_000 + b"eq\x00c__builtin__\nset\nq\x01" + b"h\x01h\0\x85R" * 10_000 + b"e."
        ),
        "dictionaries.pth": _archive(
            b"\x80\x02](ccollections\nOrderedDict\nq\x01](" + b"K\0K\0\x86" * 9_000 + b"eq\x00"
            b"" + b"h\x01h\0\x85R" * 10_000 + b"e."
        ),
        "storages.pickle": _storages(),
        "numbers.pth": _archive(
            b"\x80\x02}(" + b"".join(_long((2**61 - 1) * k) + b"K\0" for k in range(1, 100_000)) + b"u."
        ),
        "lists.pth": _archive(b"\x80\x02](" + b"]" * 20_000_000 + b"e."),
        "copies.pth": _archive(
            b"\x80\x02ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n"
            b"(ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK"
            b"\x01tQK\0J\xff\xff\xff\x7f\x85K\0\x85\x89ccollections\nOrderedDict\n)RtRctorch\nfloat64\nX\x03\0\0\0cpu\x89tR."
        ),
        "index/model.safetensors.index.json": json.dumps({"weight_map": {f"w{i}": f"{i}.bin" for i in range(COUNT)}}),
        "nested/config.json": b'{"a":' * 10**6,
        "nested/model.safetensors": _safetensors(_WIDE),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def main(folder: Path) -> None:
    """Read each file under the limit, as evaluation does, and as training does what claims to be wide."""
    import os
    import resource

    import torch
    from tests.fuzz.guard import peak

    from convmixer.api.classifier import load_model
    from convmixer.config.commands import TRAIN as COMMAND
    from convmixer.config.loading import parse
    from convmixer.distributed.processes import Processes
    from convmixer.errors import UserError
    from convmixer.training.resolve import resolve_run

    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + GROWTH, resource.RLIM_INFINITY))
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name == "config.json":
            continue
        for use in ("load_model", "resolve_run") if "wide" in path.name else ("load_model",):
            start, before = time.monotonic(), peak()
            try:
                if use == "load_model":
                    load_model(path, activation="relu")
                else:
                    resolved = parse(COMMAND, ["--set=digits", "--pretrained", str(path), "--activation", "relu"])
                    resolve_run(resolved, torch.device("cpu"), Processes(), "", lambda _: None)
                outcome = "accepted"
            except UserError as error:
                outcome = str(error)
            seconds, growth = time.monotonic() - start, peak() - before
            print(json.dumps({"file": path.name, "use": use, "outcome": outcome, "seconds": seconds, "growth": growth}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
