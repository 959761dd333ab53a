"""Options of classifying very many images."""

from __future__ import annotations

from typing import Literal

from convmixer.config.inference import AnswerOptions, FindingOptions, ModelUseOptions, ReadingOptions, WeightOptions
from convmixer.config.options import Options, option


class BulkImageOptions(FindingOptions, ReadingOptions):
    """Images"""

    data: str | None = option(
        None,
        "a folder, pattern, list, address, tar or Parquet files, as infer takes them",
        path=True,
        other_names="input images src source folder path data_url dataset",
    )


class PartOptions(AnswerOptions):
    """Answers"""

    out: str | None = option(
        None,
        "folder of the parts, new or of the same work, which then goes on; also an address",
        path=True,
        other_names="o output out_dir output_dir",
    )
    part_format: Literal["jsonl", "parquet"] = option("jsonl", "of the parts", other_names="format output_format")
    part_size: int = option(2000, "images of a part, of which a stop loses those of the last", ge=1, le=10_000_000)


class ClusterOptions(Options):
    """Cluster"""

    ray: str | None = option(
        None,
        "run as a Ray Data job: local, auto, or a cluster's address; torchrun needs no option",
        other_names="ray_address cluster",
    )
    ray_actors: int | None = option(
        None, "of Ray: models at work at the same time; left out: one per GPU, else one per 2 cores", ge=1
    )


class BulkOptions(ModelUseOptions, ClusterOptions, PartOptions, WeightOptions, BulkImageOptions):
    """Options of `bulk`."""
