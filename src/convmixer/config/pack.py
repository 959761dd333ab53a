"""Options of packing a data set into tar shards."""

from __future__ import annotations

from convmixer.config.data import DecodingOptions, SetName
from convmixer.config.log import LogOptions
from convmixer.config.options import Options, option


class PackedSetOptions(Options):
    """Data"""

    data: str | None = option(
        None,
        "folder of the data set, as data_url of training; none for a set that needs none",
        path=True,
        other_names="input source src folder path i data_url data_dir data_path dataset root",
    )
    out: str | None = option(
        None, "new folder of the shards", path=True, other_names="o output out_dir output_dir dest destination"
    )
    set: SetName = option("imagenet", "data set; imagenet is any image folder", other_names="dataset_name d")
    train_dir: str | None = option(
        "train", "folder of the training images, below DATA; none: leave them out", path=True
    )
    val_dir: str | None = option("val", "folder of the evaluation images, below DATA; none: leave them out", path=True)
    num_parallel_workers: int | None = option(
        None, "processes; left out: one for each core; 0: none beside this one", flags=("-j",), ge=0, le=256
    )


class ShardFileOptions(Options):
    """Shards"""

    short_side: int | None = option(
        None,
        "reduce images whose shorter side has more pixels, and store them as JPEG; left out: keep all as they are",
        other_names="resize size image_size max_size",
        ge=8,
        le=65_000,
    )
    quality: int = option(92, "of those JPEG files", other_names="jpeg_quality q", ge=1, le=100)
    shard_mb: int = option(256, "MiB of a shard, at most", other_names="shard_size maxsize", ge=1, le=65_536)
    seed: int = option(0, "of the order of the images in the shards", ge=0)


class PackOptions(LogOptions, ShardFileOptions, DecodingOptions, PackedSetOptions):
    """Options of `pack`."""
