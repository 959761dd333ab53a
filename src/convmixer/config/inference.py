"""Options of classifying images."""

from __future__ import annotations

from typing import Literal

from convmixer.arch import Activation
from convmixer.config.options import Options, option
from convmixer.config.schema import DeviceOptions, ExecutionOptions, Interpolation


class ImageOptions(Options):
    """Images"""

    data: str | None = option(None, "an image, or a folder of png, jpg and jpeg files")
    recursive: bool = option(False, "look for images below the folder too")
    batch_size: int = option(32, "images at once", ge=1)
    num_parallel_workers: int = option(4, "decoding threads; 0: none", flags=("-j",), ge=0, le=256)


class InputOptions(Options):
    """Preprocessing, where it should be other than the weights say"""

    image_size: int | None = option(None, "side of the network's input in pixels", ge=1, le=4096)
    crop_pct: float | None = option(None, "fraction of the resized image that the centre crop keeps", ge=0.01, le=1)
    interpolation: Interpolation | None = option(None, "resampling")
    mean: tuple[float, ...] | None = option(None, "mean of each channel, pixels in 0..1")
    std: tuple[float, ...] | None = option(None, "deviation of each channel, pixels in 0..1")
    exif: bool | None = option(None, "turn images as their EXIF orientation says")


class AnswerOptions(Options):
    """Answers"""

    output: str = option("predictions.json", "JSON file of the answers", flags=("-o",))
    format: Literal["class", "full"] = option("class", "full: names and probabilities of the most likely classes")
    topk: int = option(5, "classes an answer names with --format full", ge=1)


class WeightOptions(Options):
    """Weights"""

    checkpoint: str | None = option(None, "weight file or checkpoint folder")
    arch: str | None = option(None, "network, where the file does not say", flags=("-a",))
    activation: Activation | None = option(None, "activation, where neither file nor arch says")


class InferOptions(DeviceOptions, ExecutionOptions, InputOptions, AnswerOptions, WeightOptions, ImageOptions):
    """Options of `infer`."""
