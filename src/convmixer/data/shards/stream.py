"""The encoded images of an order that was made to be read from one end to the other, some of them ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from convmixer.data.limits import MAX_BYTES, BadImage
from convmixer.data.shards.index import ShardIndex
from convmixer.data.shards.order import SequentialOrder
from convmixer.data.source import Source, Wrapped
from convmixer.data.storage import read_range

REQUEST = 8 << 20  # bytes that are asked for at once
_GAP = 256 << 10  # bytes between two images that are read for nothing, rather than to ask twice
_THREADS = 4
_AHEAD = 2 * _THREADS  # requests that are under way or wait to be used


class WithEncoded(Wrapped):
    """A source some of whose images, by index, are in memory as the bytes of their files."""

    def __init__(self, source: Source, encoded: Mapping[int, bytes | None]) -> None:
        super().__init__(source)
        self._encoded = encoded

    def read(self, index: int) -> bytes | np.ndarray:
        encoded = self._encoded.get(index)
        return self.source.read(index) if encoded is None else encoded


@dataclass(frozen=True)
class _Request:
    """Bytes `start` to `stop` of a shard, and the images in them: their numbers in the stream, and their rows."""

    shard: int
    start: int
    stop: int
    numbers: np.ndarray
    rows: np.ndarray


def encoded_images(
    order: SequentialOrder, seed: int, epochs: Iterable[tuple[int, np.ndarray]]
) -> Iterator[bytes | None]:
    """The bytes of each image; None for one that is not read ahead, as it is too large or its disk does not give it.

    `epochs`: (epoch, indices int64 [m] in the order in which they are given). Held in memory are at most the images of
    a window and a few requests. Raises UserError (exit 1) where a server gives nothing.
    """
    index = order.index
    requests = chain.from_iterable(_plan(order, seed, epochs))
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="shards")
    under_way: deque[tuple[_Request, Future[bytes | None]]] = deque()
    held: dict[int, bytes | None] = {}

    def ask(count: int) -> None:
        while len(under_way) < count and (request := next(requests, None)) is not None:
            under_way.append((request, pool.submit(_read, index, request)))

    number = 0
    try:
        while True:
            while number not in held:
                ask(_AHEAD)
                if not under_way:
                    return
                request, future = under_way.popleft()
                held.update(_cut(index, request, future.result()))
                ask(_AHEAD)
            yield held.pop(number)
            number += 1
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _plan(order: SequentialOrder, seed: int, epochs: Iterable[tuple[int, np.ndarray]]) -> Iterator[Iterator[_Request]]:
    before = 0
    for epoch, rows in epochs:
        yield _requests(order.index, order.shard_ranks(seed, epoch), rows, before)
        before += len(rows)


def _requests(index: ShardIndex, shard_ranks: np.ndarray, rows: np.ndarray, before: int) -> Iterator[_Request]:
    """The images in the order in which they lie, neighbours together. `before`: the number of the first."""
    shard, start = index.shard[rows], index.samples.offset[rows]
    by_place = np.lexsort((start, shard_ranks[shard]))
    shard, start = shard[by_place], start[by_place]
    stop = start + index.samples.size[rows][by_place]
    is_new = (np.diff(shard) != 0) | (start[1:] - stop[:-1] > _GAP) | (np.diff(start // REQUEST) != 0)
    bounds = [0, *(np.flatnonzero(is_new) + 1).tolist(), len(rows)]
    for first, last in pairwise(bounds):
        numbers = by_place[first:last]
        yield _Request(
            int(shard[first]), int(start[first]), int(stop[first:last].max()), numbers + before, rows[numbers]
        )


def _read(index: ShardIndex, request: _Request) -> bytes | None:
    if request.stop - request.start > MAX_BYTES:  # of one image that is refused for its size when its turn comes
        return None
    try:
        return read_range(index.shards[request.shard], request.start, request.stop)
    except (OSError, BadImage):
        return None


def _cut(index: ShardIndex, request: _Request, content: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    for number, row in zip(request.numbers.tolist(), request.rows.tolist(), strict=True):
        first, size = int(index.samples.offset[row]) - request.start, int(index.samples.size[row])
        yield number, None if content is None else content[first : first + size]
