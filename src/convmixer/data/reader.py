"""Images in batches, without torch: in order with threads for evaluation, one at a time for training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from convmixer.data.crops import (
    CROP_DRAWS,
    RATIO,
    crop_interpolation,
    cut,
    eval_crop,
    random_crop_box,
    reduction_of,
    train_crop,
)
from convmixer.data.decode import decode_image, decode_pixels
from convmixer.data.limits import MAX_PIXELS, BadImage
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import Source, in_memory_images
from convmixer.errors import RUN_FAILED, UserError
from convmixer.randomness import Stream, hashes, uniforms

Resize = Callable[[np.ndarray, int, str], np.ndarray]

_REPLACEMENTS = 20  # tried before giving up: with 1 % of bad images, all would be bad once in 1e40 times


@dataclass(frozen=True)
class Batch:
    """`images`: uint8 [b, size, size, C]; `indices`: int64 [b], theirs; `bad`: index and reason of those left out."""

    indices: np.ndarray
    images: np.ndarray
    bad: list[tuple[int, str]]


def read_batches(
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    indices: np.ndarray | None = None,
    threads: int = 4,
    ahead: int = 2,
    max_pixels: int = MAX_PIXELS,
) -> Generator[Batch, None, None]:
    """The evaluation crops of a source, or of its `indices`, in order; `threads` decode up to `ahead` batches before.

    With no threads all is done in the caller's. Images that cannot be decoded are listed in `Batch.bad`.
    """
    order = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    size = preprocessing.size
    chunks = (order[first : first + batch_size] for first in range(0, len(order), batch_size))

    def crop(index: int) -> np.ndarray | BadImage:
        try:
            with only_this_image():
                image = read_image(source, index, preprocessing, max_pixels)
                return eval_crop(image, preprocessing, max_pixels)
        except BadImage as bad:
            return bad

    pixels = in_memory_images(source)
    if (
        pixels is not None
        and preprocessing.resize_size == size
        and pixels.shape[1:] == (size, size, preprocessing.channels)
    ):
        # Every crop is the image itself; Pillow would take a hundred times as long to say so.
        for chunk in chunks:
            yield Batch(chunk, pixels[chunk], [])
        return
    if threads == 0:
        for chunk in chunks:
            yield _batch(chunk, [crop(index) for index in chunk.tolist()], preprocessing)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        pending: deque[tuple[np.ndarray, list[Future[np.ndarray | BadImage]]]] = deque()
        for chunk in chunks:
            pending.append((chunk, [pool.submit(crop, index) for index in chunk.tolist()]))
            if len(pending) > ahead:
                done, futures = pending.popleft()
                yield _batch(done, [future.result() for future in futures], preprocessing)
        for done, futures in pending:
            yield _batch(done, [future.result() for future in futures], preprocessing)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class TrainReader:
    """Random crops of a source, each a pure function of (seed, epoch, index); it has no state and can be pickled.

    `min_crop`: minimum fraction of the area; `ratio`: bounds of width to height; `interpolation`: as `train_crop` has
    it. `resize`: (uint8 [h, w, C], side, key of RESAMPLE) -> uint8 [side, side, C], in place of Pillow's; large JPEG
    files are then decoded no larger than their crop needs.
    """

    source: Source
    preprocessing: Preprocessing
    seed: int = 0
    min_crop: float = 0.08
    ratio: tuple[float, float] = RATIO
    interpolation: str = "random"
    max_pixels: int = MAX_PIXELS
    resize: Resize | None = None

    def read(self, epoch: int, index: int) -> tuple[np.ndarray, int, int, tuple[int, str] | None]:
        """(crop uint8 [size, size, C], its label, the index that it comes from, the bad image that it stands for).

        An `index` past the last is another draw of the image that it is modulo their number (`batch_sampler.Order`).
        A bad image is replaced by another, the same one every time, and reported as (index, reason). A replacement that
        is bad too is reported when its own turn comes. Raises UserError when no replacement can be decoded.
        """
        draws = uniforms(CROP_DRAWS, Stream.CROP, self.seed, epoch, index)
        actual, bad = index, None
        count = len(self.source)
        for attempt in range(_REPLACEMENTS + 1):
            try:
                with only_this_image():
                    crop = self._crop(actual % count, draws)
            except BadImage as error:
                bad = bad or (actual % count, str(error))
                draw = hashes(Stream.REPLACEMENT, self.seed, epoch, index, attempt)
                actual = int(draw % np.uint64(count))
                continue
            return crop, int(self.source.labels[actual % count]), actual, bad
        name = self.source.name(index % count)
        raise UserError(f"{name} and {_REPLACEMENTS} images in its place cannot be decoded", exit_code=RUN_FAILED)

    def _crop(self, index: int, draws: np.ndarray) -> np.ndarray:
        size, scale = self.preprocessing.size, (self.min_crop, 1.0)
        if self.resize is None:
            image = read_image(self.source, index, self.preprocessing, self.max_pixels)
            return train_crop(image, size, draws, scale, self.ratio, self.interpolation)
        box = partial(random_crop_box, uniforms=draws, scale=scale, ratio=self.ratio)
        pixels, whole = decode_pixels(
            self.source.read(index),
            lambda width, height: reduction_of(box(width, height), size),
            channels=self.preprocessing.channels,
            exif=self.preprocessing.exif,
            max_pixels=self.max_pixels,
        )
        interpolation = crop_interpolation(self.interpolation, draws)
        return self.resize(cut(pixels, box(*whole), whole), size, interpolation)


def read_image(source: Source, index: int, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The whole image in the channels and the orientation of `preprocessing`; call it within `only_this_image`."""
    encoded = source.read(index)
    return decode_image(encoded, channels=preprocessing.channels, exif=preprocessing.exif, max_pixels=max_pixels)


@contextmanager
def only_this_image() -> Iterator[None]:
    """Turn what one image can cause, its file's errors and want of memory, into BadImage: it must not end a job."""
    try:
        yield
    except MemoryError:
        raise BadImage("too large for the memory") from None
    except OSError as error:
        raise BadImage(error.strerror or "cannot be read") from error


def _batch(indices: np.ndarray, crops: list[np.ndarray | BadImage], preprocessing: Preprocessing) -> Batch:
    good = [crop for crop in crops if not isinstance(crop, BadImage)]
    kept = np.array([not isinstance(crop, BadImage) for crop in crops], dtype=bool)
    bad = [(int(i), str(crop)) for i, crop in zip(indices, crops, strict=True) if isinstance(crop, BadImage)]
    shape = (len(good), preprocessing.size, preprocessing.size, preprocessing.channels)
    return Batch(indices[kept], np.stack(good) if good else np.empty(shape, np.uint8), bad)
