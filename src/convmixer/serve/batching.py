"""Images that wait are answered together: whatever has come while a batch ran is the next batch.

So nobody waits for a batch to fill: a lone image is run at once, and under load the batches grow by themselves.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class Full(Exception):
    """So many images wait already that another would wait for too long."""


class Closed(Exception):
    """Nothing is answered any more."""


@dataclass(frozen=True)
class _Waiting:
    crop: np.ndarray
    answer: asyncio.Future[np.ndarray]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """Runs `logits`, uint8 [N, size, size, channels] -> float32 [N, classes], in a thread of its own.

    Batches have 1, 2, 4 ... images, `max_batch` at most: of few sizes, as engines prepare for each. `capacity`: images
    that may be on their way; `on_batch` gets the number of images of each batch.
    """

    def __init__(
        self,
        logits: Callable[[np.ndarray], np.ndarray],
        max_batch: int,
        capacity: int,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._logits, self._max_batch, self._capacity, self._on_batch = logits, max_batch, capacity, on_batch
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self.on_their_way = 0
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._is_closed

    def reserve(self, count: int) -> None:
        """Take places for so many images, all or none. Raises Full. `release` gives them back."""
        if self.on_their_way + count > self._capacity:
            raise Full
        self.on_their_way += count

    def release(self, count: int) -> None:
        """Give back places that `reserve` took."""
        self.on_their_way -= count

    async def answer(self, crop: np.ndarray) -> np.ndarray:
        """Logits float32 [classes] of a crop uint8 [size, size, channels]. Raises Closed, and what the engine does."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(crop, loop.create_future(), loop)
        with self._changed:
            if self._is_closed:
                raise Closed
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.answer

    def close(self) -> None:
        """Answer what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                found = self._logits(np.stack([each.crop for each in batch]))
            except Exception as error:  # the engine's; the server goes on
                for each in batch:
                    each.loop.call_soon_threadsafe(_fail, each.answer, error)
                continue
            self._on_batch(len(batch))
            for each, row in zip(batch, found, strict=True):
                each.loop.call_soon_threadsafe(_resolve, each.answer, row)

    def _next(self) -> list[_Waiting]:
        """The next images, a power of two of them; none at the end."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            count = min(len(self._waiting), self._max_batch)
            count = 1 << (count.bit_length() - 1) if count else 0
            return [self._waiting.popleft() for _ in range(count)]


def _resolve(answer: asyncio.Future[np.ndarray], row: np.ndarray) -> None:
    if not answer.done():  # who asked may have gone
        answer.set_result(row)


def _fail(answer: asyncio.Future[np.ndarray], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
