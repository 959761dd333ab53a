"""Samples as a file: NumPy's archive of arrays, neither pickled nor compressed, so that it unpacks to no more than it
is."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import Counter

import numpy as np

from convmixer.data.shards.samples import Samples

_NUMBERS = ("offset", "size", "label", "key_ends")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error)


def to_bytes(samples: Samples) -> bytes:
    """The file's content; the same for the same samples."""
    texts = json.dumps({"names": samples.names, "ignored": samples.ignored}, sort_keys=True).encode()
    file = io.BytesIO()
    arrays = {name: getattr(samples, name) for name in _NUMBERS}
    np.savez(file, keys=samples.keys, texts=np.frombuffer(texts, dtype=np.uint8), **arrays)
    return file.getvalue()


def from_bytes(content: bytes) -> Samples | None:
    """The samples; None for what is no such file, or is not consistent."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            texts = json.loads(arrays["texts"].tobytes())
            offset, size, label, key_ends = (np.asarray(arrays[name], dtype=np.int64) for name in _NUMBERS)
            samples = Samples(
                offset,
                size,
                label,
                np.asarray(arrays["keys"], dtype=np.uint8),
                key_ends,
                tuple(map(str, texts["names"])),
                Counter({str(why): int(count) for why, count in texts["ignored"].items()}),
            )
    except _DAMAGE:
        return None
    return samples if _is_consistent(samples) else None


def _is_consistent(samples: Samples) -> bool:
    count = len(samples.offset)
    columns = (samples.offset, samples.size, samples.label, samples.key_ends)
    if any(column.shape != (count,) for column in columns) or samples.keys.ndim != 1:
        return False
    if count == 0:
        return True
    ends = np.concatenate([[0], samples.key_ends])
    return bool(
        (np.diff(ends) >= 0).all()
        and ends[-1] == len(samples.keys)
        and (samples.offset >= 0).all()
        and (samples.size >= 0).all()
        and (samples.label >= -len(samples.names)).all()
    )
