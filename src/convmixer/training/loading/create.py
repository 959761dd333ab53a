"""Which loader a run's batches come from, and what of the images it keeps in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

from convmixer import machine
from convmixer.augment.host import HostAugmentation
from convmixer.data.cache import CachedSource, Prepare, SharedArena
from convmixer.data.decode import decode_pixels, jpeg_size
from convmixer.data.limits import BadImage
from convmixer.data.reader import TrainReader, only_this_image
from convmixer.data.shards.order import SequentialOrder
from convmixer.data.source import Source, is_in_memory
from convmixer.errors import UserError
from convmixer.training.datasets import train_reader
from convmixer.training.loading.device_images import images_for_device
from convmixer.training.loading.device_loader import DeviceLoader
from convmixer.training.loading.train_batch import BatchLoader
from convmixer.training.loading.worker_loader import WorkerLoader
from convmixer.training.resolved_run import ResolvedRun

# Of what is free, what is taken for the images where nobody has asked for it, and where somebody has.
_UNASKED, _ASKED = 1 / 4, 1 / 2
_SAMPLED = 100  # images that the size of all of them is estimated by


def create_loader(run: ResolvedRun, say: Callable[[str], None]) -> BatchLoader:
    """The loader that the options ask for; `say` gets a line on what is kept in memory.

    Raises UserError where `cache` asks for what these images do not allow.
    """
    config, rank, reader = run.config, run.processes.rank, train_reader(run.config, run.data)
    augment = HostAugmentation(config, run.data.train_preprocessing, config.seed) if run.augments_on_host else None
    is_sequential = isinstance(run.sampler.order, SequentialOrder)
    if is_sequential and config.cache in ("ram", "device"):
        raise UserError(
            f"--cache {config.cache}: images in a sequential order are read ahead, not kept; --shard_order shuffled is"
        )
    if config.cache in ("auto", "device") and not is_sequential:
        decode, is_asked = partial(_decoded, reader=reader), config.cache == "device"
        kept = images_for_device(reader, decode, run.device, is_asked=is_asked, say=say)
        if kept is not None:
            images, crops = kept
            labels = run.data.train.labels
            return DeviceLoader(images, labels, run.sampler, rank=rank, device=run.device, crops=crops, augment=augment)
    count = machine.workers(config.num_parallel_workers)
    if config.cache in ("auto", "ram") and not is_sequential:
        reader = _cached(reader, max(count, 1), is_asked=config.cache == "ram", say=say)
    return WorkerLoader(
        reader,
        run.sampler,
        rank=rank,
        workers=count,
        pin=run.device.type == "cuda",
        timeout=config.loader_timeout,
        augment=augment,
    )


def _cached(reader: TrainReader, writers: int, *, is_asked: bool, say: Callable[[str], None]) -> TrainReader:
    """The reader over its images kept in shared memory, or as it was."""
    source, known = reader.source, machine.memory()
    if is_in_memory(source) or len(source) == 0:
        return reader
    if known is None:
        return _without(reader, "it does not say how much is free", is_asked)
    budget = int(known[1] * (_ASKED if is_asked else _UNASKED)) // machine.processes_here()
    decode = partial(_decoded, reader=reader)
    encoded, decoded = _estimates(source, _as_it_is, decode)
    if decoded > budget and not is_asked:
        return reader
    prepare, size, form = (decode, decoded, "decoded") if decoded <= budget else (_as_it_is, encoded, "encoded")
    # Each writer has its part, and what it reads is not exactly its share.
    size = min(int(size * 1.25) + (64 << 20), budget)
    try:
        arena = SharedArena(len(source), size, writers)
    except (OSError, AttributeError) as error:  # a limit, or a system without memfd_create
        return _without(reader, getattr(error, "strerror", None) or str(error), is_asked)
    part = "" if min(encoded, decoded) <= budget else ", as many as there is room for"
    say(f"cache: the {form} training images{part}, {size / 1e6:,.0f} MB at most, are kept in memory as they are read")
    return replace(reader, source=CachedSource(source, arena, prepare))


def _without(reader: TrainReader, why: str, is_asked: bool) -> TrainReader:
    if is_asked:
        raise UserError(f"--cache ram: this system gives no shared memory: {why}")
    return reader


def _as_it_is(read: bytes | np.ndarray) -> bytes | np.ndarray:
    return read


def _decoded(read: bytes | np.ndarray, reader: TrainReader) -> bytes | np.ndarray:
    """The pixels; but the file of an image that `reader` may decode smaller than it is, so that no result changes."""
    if isinstance(read, np.ndarray):
        return read
    size = jpeg_size(read)
    if reader.resize is not None and size is not None and min(size) >= 2 * reader.preprocessing.size:
        return read
    preprocessing = reader.preprocessing
    pixels, _ = decode_pixels(
        read,
        lambda *_: 1,
        channels=preprocessing.channels,
        exif=preprocessing.exif,
        max_pixels=reader.max_pixels,
    )
    return pixels


def _estimates(source: Source, *forms: Prepare) -> list[int]:
    """About how many bytes all images of a source have when they are kept in each of the forms."""
    sizes: list[list[int]] = [[] for _ in forms]
    for index in np.linspace(0, len(source) - 1, min(_SAMPLED, len(source)), dtype=np.int64).tolist():
        # What cannot be read or decoded is not kept, in that form.
        with suppress(BadImage), only_this_image():
            read = source.read(index)
            for form, prepare in zip(sizes, forms, strict=True):
                kept = prepare(read)
                form.append(len(kept) if isinstance(kept, bytes) else kept.nbytes)
    return [int(np.mean(form) * len(source)) if form else 0 for form in sizes]
