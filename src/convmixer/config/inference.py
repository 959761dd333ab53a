"""Options of classifying images."""

from __future__ import annotations

from typing import Literal

from convmixer.config import preprocessing
from convmixer.config.data import DecodingOptions
from convmixer.config.execution import DeviceOptions, EngineOptions, ExecutionOptions, PrecisionOptions
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


class FindingOptions(Options):
    """Images"""

    recursive: bool = option(False, "look for images below the folders too", other_names="r")
    column: str | None = option(
        None, "of a table: column of the images or their paths; left out: the first with a usual name"
    )


class ImageOptions(FindingOptions, ReadingOptions):
    """Images"""

    data: tuple[str, ...] = option(
        (),
        "images, folders, patterns, lists (.txt .csv .jsonl), addresses, tar or Parquet files; - is stdin",
        path=True,
        other_names="input image images img source src folder path i data_url data_dir data_path dataset",
    )


class InputOptions(preprocessing.InputOptions):
    """Preprocessing"""

    interpolation: Interpolation | None = option(None, "resampling; left out: the weights', else bicubic")


class TopkOptions(Options):
    """Answers"""

    topk: int = option(5, "classes that an answer names, the most likely ones", other_names="k top_k", ge=1)


class AnswerOptions(TopkOptions):
    """Answers"""

    threshold: float = option(
        0.0,
        "an answer with a lower probability is called unsure",
        other_names="conf confidence min_confidence min_prob",
        ge=0,
        le=1,
    )
    embed: bool = option(
        False,
        "write the feature vector of each image too, to .jsonl or .parquet",
        other_names="embeddings features vectors",
    )


class AnswerFileOptions(AnswerOptions):
    """Answers"""

    output: str = option(
        "predictions.json",
        "file of the answers, by its name .json, .jsonl, .csv or .parquet; - is stdout, as JSON lines",
        flags=("-o",),
        path=True,
        other_names="out o out_dir output_dir output_file save save_dir result",
    )
    format: Literal["class", "full"] = option(
        "full", "full: names and probabilities; class: numbers alone, as the model zoo's infer.py"
    )
    explain: str | None = option(
        None,
        "folder for a picture per image of what spoke for its answer, the exact class-activation map",
        path=True,
        other_names="cam gradcam grad_cam heatmap visualize",
    )


class WeightOptions(WeightArchOptions):
    """Weights"""

    checkpoint: str | None = option(
        None,
        "weight file or checkpoint folder",
        path=True,
        other_names="pretrained weights ckpt model model_path w load resume",
    )


class ModelUseOptions(
    LogOptions,
    DeviceOptions,
    EngineOptions,
    ExecutionOptions,
    PrecisionOptions,
    DecodingOptions,
    InputOptions,
):
    """What every command takes that applies a model file to images."""


class InferOptions(ModelUseOptions, AnswerFileOptions, WeightOptions, ImageOptions):
    """Options of `infer`."""
