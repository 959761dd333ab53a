"""Writing the shards of a data set. A run that was killed goes on behind its last whole shard, to the same result."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convmixer.data.batch_sampler import permutation
from convmixer.data.shards.index_file import to_bytes
from convmixer.data.shards.manifest import INDEX
from convmixer.data.shards.samples import Samples, concatenated, scan
from convmixer.data.source import Source
from convmixer.errors import RUN_FAILED, UserError
from convmixer.packing.images import ImageSize
from convmixer.packing.record import LOCK, Record, begun, fingerprint, keep_whole_shards, shard_name
from convmixer.packing.shard_writer import ShardWriter
from convmixer.packing.workers import packed_images
from convmixer.runs.durable import remove_leftovers, write_file
from convmixer.terminal.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedSet:
    """What was written: images and bytes of each split, and the images that were left out, by name and reason."""

    images: dict[str, int]
    bytes: int
    shards: int
    bad: list[tuple[str, str]]


def pack(
    splits: Mapping[str, Source], out: Path, size: ImageSize, *, shard_bytes: int, seed: int, workers: int
) -> PackedSet:
    """Write the splits to `out`/<split>/<split>-000000.tar and so on, and a manifest beside them.

    The images of a split come in an order that `seed` shuffles, so that to read a shard from one end to the other is to
    read a random part. The result does not depend on `workers`. Raises UserError for a folder that holds anything but
    an earlier part of the same work, and (exit 1) where the disk refuses.
    """
    identity = {
        "classes": list(next(iter(splits.values())).classes.names),
        "options": {**asdict(size), "shard_bytes": shard_bytes, "seed": seed},
        "source": {
            name: {"images": len(source), "names and labels": fingerprint(source)} for name, source in splits.items()
        },
    }
    with _refusals_of_the_disk(out):
        record = begun(out, identity)
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out), Progress(sum(map(len, splits.values())), "pack") as progress:
            remove_leftovers(out)
            record.save()
            for name, source in splits.items():
                (out / name).mkdir(exist_ok=True)
                keep_whole_shards(record, name)
                _pack_split(record, name, source, size, shard_bytes, seed, workers, progress)
                write_file(out / name / INDEX, _index(record, name))
            record.finish()
            progress.line(f"{progress.done} images, {progress.rate:.1f} img/s")
    return _result(record)


def _pack_split(
    record: Record,
    name: str,
    source: Source,
    size: ImageSize,
    shard_bytes: int,
    seed: int,
    workers: int,
    progress: Progress,
) -> None:
    shards = record.splits[name]
    order = permutation(len(source), seed, 0)
    first = shards[-1]["next"] if shards else 0
    if first:
        logger.info(f"{record.out / name}: {first} images, {len(shards)} whole shards, are there already")
    progress.add(first)
    writer: ShardWriter | None = None
    bad: list[tuple[str, str]] = []

    def close(writer: ShardWriter, following: int) -> None:
        shards.append({**writer.finish(), "next": following, "bad": [list(each) for each in bad]})
        bad.clear()
        record.save()

    try:
        for at, image in enumerate(packed_images(source, order[first:], size, workers), first):
            if isinstance(image, str):
                bad.append((source.name(int(order[at])), image))
            else:
                extension, content = image
                if writer is not None and not writer.takes(content, shard_bytes):
                    close(writer, at)
                    writer = None
                writer = writer or ShardWriter(record.out / name / shard_name(name, len(shards)))
                writer.add(f"{at:09d}", extension, content, int(source.labels[order[at]]))
            progress.add(1)
        if writer is not None:
            close(writer, len(source))
        elif bad:
            raise UserError(f"{name}: no image can be read; the first: {bad[0][0]}: {bad[0][1]}", exit_code=RUN_FAILED)
    finally:
        if writer is not None:
            writer.abandon()  # nothing, where it is finished


def _index(record: Record, name: str) -> bytes:
    """The file of the index, from what was written."""
    parts = [_samples(record.out / name / shard["name"], shard["bytes"]) for shard in record.splits[name]]
    assert [len(part) for part in parts] == [shard["images"] for shard in record.splits[name]]
    return to_bytes(concatenated(parts))


def _samples(path: Path, size: int) -> Samples:
    with path.open("rb", buffering=0) as file:
        return scan(lambda at, count: os.pread(file.fileno(), count, at), size, str(path))


def _result(record: Record) -> PackedSet:
    shards = [shard for split in record.splits.values() for shard in split]
    images = {name: sum(shard["images"] for shard in split) for name, split in record.splits.items()}
    return PackedSet(images, sum(shard["bytes"] for shard in shards), len(shards), record.bad)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second process from packing into the same folder."""
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"OUT: another process packs into {out}", exit_code=RUN_FAILED) from None
        yield
        with contextlib.suppress(OSError):
            (out / LOCK).unlink()


@contextmanager
def _refusals_of_the_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where: Any = error.filename or out
        raise UserError(
            f"{where}: cannot be written: {error.strerror}; run the same again, which goes on", exit_code=RUN_FAILED
        ) from None
