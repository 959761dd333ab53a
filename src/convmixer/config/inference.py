"""Options of classifying images."""

from __future__ import annotations

from typing import Literal

from convmixer.arch import Activation
from convmixer.config import preprocessing
from convmixer.config.options import Options, option
from convmixer.config.preprocessing import Interpolation
from convmixer.config.schema import DecodingOptions, DeviceOptions, EntryOptions, ExecutionOptions


class ImageOptions(Options):
    """Images"""

    data: str | None = option(None, "an image, or a folder of images", path=True)
    recursive: bool = option(False, "look for images below the folder too")
    batch_size: int = option(32, "images at once", ge=1)
    num_parallel_workers: int = option(4, "decoding threads; 0: none", flags=("-j",), ge=0, le=256)


class InputOptions(preprocessing.InputOptions):
    """Preprocessing"""

    interpolation: Interpolation | None = option(None, "resampling; left out: the weights', else bicubic")


class AnswerOptions(Options):
    """Answers"""

    output: str = option("predictions.json", "JSON file of the answers", flags=("-o",), path=True)
    format: Literal["class", "full"] = option("class", "full: names and probabilities of the most likely classes")
    topk: int = option(5, "classes an answer names with --format full", ge=1)


class WeightOptions(EntryOptions):
    """Weights"""

    checkpoint: str | None = option(None, "weight file or checkpoint folder", path=True)
    arch: str | None = option(None, "network, where the file does not say", flags=("-a",))
    activation: Activation | None = option(None, "activation, where neither file nor arch says")


class InferOptions(
    DeviceOptions, ExecutionOptions, DecodingOptions, InputOptions, AnswerOptions, WeightOptions, ImageOptions
):
    """Options of `infer`."""
