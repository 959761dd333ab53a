"""Options of classifying images."""

from __future__ import annotations

from typing import Literal

from convmixer.config import preprocessing
from convmixer.config.data import DecodingOptions
from convmixer.config.execution import DeviceOptions, ExecutionOptions, PrecisionOptions
from convmixer.config.log import LogOptions
from convmixer.config.model import WeightArchOptions
from convmixer.config.options import Options, option
from convmixer.config.preprocessing import Interpolation


class ReadingOptions(Options):
    """Images"""

    batch_size: int = option(32, "images at once", other_names="bs batch b", ge=1)
    num_parallel_workers: int | None = option(
        None,
        "decoding threads; left out: one per core, at most 16; 0: none",
        flags=("-j",),
        other_names="workers num_workers threads w",
        ge=0,
        le=256,
    )


class ImageOptions(ReadingOptions):
    """Images"""

    data: str | None = option(
        None,
        "an image, or a folder of images",
        path=True,
        other_names="input image images img source src folder path i data_url data_dir data_path dataset",
    )
    recursive: bool = option(False, "look for images below the folder too")


class InputOptions(preprocessing.InputOptions):
    """Preprocessing"""

    interpolation: Interpolation | None = option(None, "resampling; left out: the weights', else bicubic")


class AnswerOptions(Options):
    """Answers"""

    output: str = option(
        "predictions.json",
        "JSON file of the answers",
        flags=("-o",),
        path=True,
        other_names="out o out_dir output_dir output_file save save_dir result",
    )
    format: Literal["class", "full"] = option("class", "full: names and probabilities of the most likely classes")
    topk: int = option(5, "classes that an answer names with --format full", other_names="k top_k", ge=1)


class WeightOptions(WeightArchOptions):
    """Weights"""

    checkpoint: str | None = option(
        None,
        "weight file or checkpoint folder",
        path=True,
        other_names="pretrained weights ckpt model model_path w load resume",
    )


class InferOptions(
    LogOptions,
    DeviceOptions,
    ExecutionOptions,
    PrecisionOptions,
    DecodingOptions,
    InputOptions,
    AnswerOptions,
    WeightOptions,
    ImageOptions,
):
    """Options of `infer`."""
