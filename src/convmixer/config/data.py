"""Options of the images that are read, and of how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from convmixer.config.options import Options, option
from convmixer.plugins import names_in

if TYPE_CHECKING:
    SetName = str
else:
    SetName = Literal[names_in("data.sources")]


CacheKind = Literal["auto", "none", "ram", "device"]

AUTO_BATCH = 0  # what stands for `auto` until it is measured (training.auto_batch)


class DataOptions(Options):
    """Data"""

    set: SetName = option(
        "imagenet",
        "data set; imagenet is any image folder",
        other_names="dataset dataset_name d",
        commands="train eval export",
    )
    data_url: str | None = option(
        None,
        "folder of the data set; it may stand without the flag",
        path=True,
        other_names="data data_dir data_path root folder path",
        commands="train eval export",
        affects_training=False,
    )
    train_dir: str = option(
        "train",
        "folder of the training images, below data_url",
        path=True,
        commands="train eval export",
        affects_training=False,
    )
    val_dir: str = option(
        "val",
        "folder of the evaluation images, below data_url",
        path=True,
        commands="train eval export",
        affects_training=False,
    )
    val_fraction: float | None = option(
        None,
        "hold this fraction of each training class out for evaluation; left out: .2 where there is no val",
        other_names="val_split validation_split test_size val_size split",
        commands="train eval",
        gt=0,
        lt=1,
    )
    train_num_samples: int | None = option(None, "use this many training images, chosen by seed", ge=1)
    val_num_samples: int | None = option(
        None, "use this many evaluation images, chosen by seed", commands="train eval", ge=1
    )
    batch_size: int = option(
        128,
        "images per process and (micro-)batch; auto (or 0): measured, in training",
        other_names="bs batch b per_device_train_batch_size",
        commands="train eval",
        affects_training=False,
        ge=AUTO_BATCH,
        le=65536,
    )
    num_parallel_workers: int | None = option(
        None,
        "loader processes or decoding threads; left out: one per core, at most 16; 0: none",
        flags=("-j",),
        other_names="workers num_workers threads w",
        commands="train eval export",
        affects_training=False,
        ge=0,
        le=256,
    )
    cache: CacheKind = option(
        "auto",
        "keep training images in memory or on the device; auto: where they need little of it",
        affects_training=False,
    )

    @field_validator("batch_size", mode="before")
    @classmethod
    def _auto_is_a_number(cls, value: Any) -> Any:
        return AUTO_BATCH if isinstance(value, str) and value.strip().lower() == "auto" else value


class ShardOptions(Options):
    """Tar shards"""

    shard_order: Literal["auto", "shuffled", "sequential"] = option(
        "auto",
        "shuffled: any image next; sequential: shard after shard; auto: sequential for addresses (http://)",
    )
    shuffle_buffer: int = option(
        4096,
        "images in memory among which a sequential order is shuffled",
        other_names="shuffle_size buffer_size",
        ge=1,
    )


class DecodingOptions(Options):
    """Decoding"""

    max_pixels: int = option(
        89_478_485,
        "maximum pixels of an image; a JPEG file of up to four times as many is decoded at half its size",
        commands="train eval export",
        ge=1,
    )
