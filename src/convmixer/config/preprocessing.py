"""Options of how an image becomes the network's input."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from convmixer.config.options import Options, option

ALL = "train eval export"

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
TrainInterpolation = Literal["random", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


Resampler = Literal["torch", "pillow"]


class InputOptions(Options):
    """Preprocessing"""

    # None: as the weights say, else as `data.preprocessing.Preprocessing` has it, the one place of these defaults.
    image_size: int | None = option(
        None,
        "side of the network's input in pixels; left out: the weights', else 224",
        other_names="img img_size imgsz input_size size resolution res",
        commands=ALL,
        ge=1,
        le=4096,
    )
    crop_pct: float | None = option(
        None,
        "fraction of the resized image that the centre crop keeps; left out: the weights', else .96",
        commands=ALL,
        ge=0.01,
        le=1,
    )
    mean: tuple[float, ...] | None = option(
        None, "mean of each channel, pixels in 0..1; left out: the weights', else ImageNet's", commands=ALL
    )
    std: tuple[float, ...] | None = option(
        None, "deviation of each channel, pixels in 0..1; left out: the weights', else ImageNet's", commands=ALL
    )
    exif: bool | None = option(
        None, "turn images as their EXIF orientation says; left out: as the weights say, else not", commands=ALL
    )

    @field_validator("mean", "std")
    @classmethod
    def _pixels_are_fractions(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value and max(value) > 1:
            raise ValueError(f"is {' '.join(f'{part:g}' for part in value)}, of pixels in 0..255; divide by 255")
        return value


class CropOptions(Options):
    """Preprocessing of training"""

    interpolation: TrainInterpolation = option(
        "random",
        "resampling of training crops, and of evaluation where weights do not say (random: bicubic)",
        commands=ALL,
    )
    train_image_size: int | None = option(
        None,
        "side of training crops; left out: image_size; some smaller than that gains accuracy (FixRes)",
        other_names="train_size train_resolution",
        ge=1,
        le=4096,
    )
    resampler: Resampler = option(
        "torch",
        "resize of training crops; torch: faster, within 2 levels of Pillow's, reads large JPEG files smaller",
    )
    min_crop: float = option(0.08, "minimum area of a training crop, as a fraction of the image", gt=0, le=1)
    crop_ratio: tuple[float, float] = option((0.75, 4 / 3), "minimum and maximum width / height of a training crop")
