"""The samples of all shards of a split: from what `pack` has written, from the user's cache, or from their headers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convmixer.data.shards.chunks import Chunks
from convmixer.data.shards.index_file import from_bytes, to_bytes
from convmixer.data.shards.manifest import PackedSplit
from convmixer.data.shards.samples import Samples, concatenated, scan
from convmixer.data.storage import about, base_name, is_remote
from convmixer.errors import RUN_FAILED, UserError
from convmixer.terminal.progress import Progress
from convmixer.user_cache import user_cache

logger = logging.getLogger(__name__)

_THREADS = 8  # that wait for a server; more would be taken for an attack by some


@dataclass(frozen=True)
class ShardIndex:
    """`shards`: their locations; `sizes`: int64 [s], in bytes; `shard`: int32 [n], that of each sample, ascending."""

    shards: tuple[str, ...]
    sizes: np.ndarray
    shard: np.ndarray
    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: np.ndarray) -> ShardIndex:
        """Some of the samples, int64 [m], in this order, of the same shards."""
        return ShardIndex(self.shards, self.sizes, self.shard[rows], self.samples.take(rows))


def index_of(shards: Sequence[str], packed: PackedSplit | None, *, labelled: bool = True) -> ShardIndex:
    """The index of the shards; `labelled` as `scan` has it.

    Raises UserError for one that is missing, damaged or cut, or no longer as `pack` left it.
    """
    found = _about_all(shards)
    sizes = np.array([size for size, _ in found], dtype=np.int64)
    if packed is not None:
        return _index_of_packed(shards, sizes, packed)
    return _joined(shards, sizes, _cached_or_scanned(shards, found, labelled))


def _about_all(shards: Sequence[str]) -> list[tuple[int, str]]:
    def ask(shard: str) -> tuple[int, str]:
        found = about(shard)
        if found is None:
            raise UserError(f"{shard}: there is no such file")
        return found

    if not is_remote(shards[0]):
        return [ask(shard) for shard in shards]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(ask, shards))


def _index_of_packed(shards: Sequence[str], sizes: np.ndarray, packed: PackedSplit) -> ShardIndex:
    for shard, size in zip(shards, sizes.tolist(), strict=True):
        if packed.sizes.get(base_name(shard)) != size:
            wanted = packed.sizes.get(base_name(shard))
            raise UserError(
                f"{shard}: has {size} bytes, its manifest says {wanted}; fetch it or pack it again",
                exit_code=RUN_FAILED,
            )
    samples = packed.samples()
    if samples is not None and len(samples) and samples.label.max() < len(packed.classes):
        # Members of a tar file come one after the other: where an offset is no larger, the next shard begins.
        number = np.cumsum(np.diff(samples.offset, prepend=0) <= 0, dtype=np.int32)
        whole = np.array(list(packed.sizes.values()), dtype=np.int64)
        if number[-1] + 1 == len(whole) and (samples.offset + samples.size <= whole[number]).all():
            index = ShardIndex(tuple(packed.shards), whole, number, samples)
            return index if index.shards == tuple(shards) else _of_shards(index, shards)
    logger.warning(f"{packed.location}: its index is missing or damaged; the shards are read instead")
    return _joined(shards, sizes, _cached_or_scanned(shards, [(size, "") for size in sizes.tolist()]))


def _joined(shards: Sequence[str], sizes: np.ndarray, parts: Sequence[Samples]) -> ShardIndex:
    number = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    return ShardIndex(tuple(shards), sizes, number, concatenated(parts))


def _of_shards(index: ShardIndex, shards: Sequence[str]) -> ShardIndex:
    """Of some of the shards only, in their order."""
    places = [index.shards.index(shard) for shard in shards]
    rows = [np.flatnonzero(index.shard == place) for place in places]
    number = np.repeat(np.arange(len(rows), dtype=np.int32), [len(row) for row in rows])
    return ShardIndex(tuple(shards), index.sizes[places], number, index.samples.take(np.concatenate(rows)))


def _cached_or_scanned(shards: Sequence[str], found: Sequence[tuple[int, str]], labelled: bool = True) -> list[Samples]:
    files = [_cache_file(shard, *each, labelled) for shard, each in zip(shards, found, strict=True)]
    parts = [_cached(file) for file in files]
    if all(part is not None for part in parts):
        return [part for part in parts if part is not None]
    with _one_at_a_time():
        # What another process of this machine has read meanwhile is there now.
        parts = [part or _cached(file) for part, file in zip(parts, files, strict=True)]
        missing = [place for place, part in enumerate(parts) if part is None]
        total = sum(found[place][0] for place in missing)
        remote = is_remote(shards[0])
        if missing:
            what = "read once from end to end" if remote else "looked through once"
            shards_have = "1 shard has" if len(missing) == 1 else f"{len(missing)} shards have"
            logger.info(f"{shards_have} no index yet: {total / 1e6:,.1f} MB are {what}")
        with Progress(total >> 20, "index", "MiB") as progress, ThreadPoolExecutor(_THREADS if remote else 1) as pool:
            add = _Mebibytes(progress.add)
            futures = {
                place: pool.submit(_scanned, shards[place], found[place][0], files[place], add, labelled)
                for place in missing
            }
            try:
                return [part or futures[place].result() for place, part in enumerate(parts)]
            except BaseException:
                add.stop()
                pool.shutdown(cancel_futures=True)
                raise


def _scanned(
    shard: str, size: int, cache_file: Path | None, on_bytes: Callable[[int], None], labelled: bool
) -> Samples:
    if is_remote(shard):
        # A few: an image may be larger than a chunk, and its label lies behind it or before it.
        chunks = Chunks(4)
        samples = scan(
            lambda at, count: chunks.read(shard, size, at, at + count), size, shard, on_bytes, labelled=labelled
        )
    else:
        try:
            with open(shard, "rb", buffering=0) as file:
                handle = file.fileno()
                samples = scan(lambda at, count: os.pread(handle, count, at), size, shard, on_bytes, labelled=labelled)
        except OSError as error:
            raise UserError(f"{shard}: cannot be read: {error.strerror}", exit_code=RUN_FAILED) from None
    if cache_file is not None:
        _keep(cache_file, to_bytes(samples))
    return samples


class _Mebibytes:
    """Bytes from several threads on to a count of whole MiB; after `stop` it raises in each of them."""

    def __init__(self, add: Callable[[int], None]) -> None:
        self._add, self._rest, self._lock, self._stopped = add, 0, threading.Lock(), False

    def __call__(self, count: int) -> None:
        if self._stopped:
            raise CancelledError
        with self._lock:
            self._rest += count
            self._add(self._rest >> 20)
            self._rest &= (1 << 20) - 1

    def stop(self) -> None:
        self._stopped = True


def cache_folder() -> Path:
    """`convmixer/shards` in the user's cache folder."""
    return user_cache("shards")


def _cache_file(shard: str, size: int, stamp: str, labelled: bool) -> Path | None:
    """Where the samples of a shard are kept; None where nothing would tell that it has changed."""
    kind = "" if labelled else "\0images alone"
    key = hashlib.sha256(f"{shard}\0{size}\0{stamp}{kind}".encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / f"{key[:40]}.npz" if stamp else None


def _cached(file: Path | None) -> Samples | None:
    with contextlib.suppress(OSError):
        return None if file is None else from_bytes(file.read_bytes())
    return None


def _keep(file: Path, content: bytes) -> None:
    """Write a file of the cache whole or not at all; a cache that cannot be written is none."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """The processes of a run, which all open the data, wait for the first of them on this machine."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            cache_folder().mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((cache_folder() / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
