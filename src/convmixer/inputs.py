"""Which preprocessing holds: the command line wins over the weight file's record, and that over recipe and defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from convmixer.config.loading import Resolved
from convmixer.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from convmixer.errors import UserError

# Option -> field of the record.
_FIELDS = {
    "image_size": "size",
    "crop_pct": "crop_pct",
    "interpolation": "interpolation",
    "mean": "mean",
    "std": "std",
    "exif": "exif",
}


class InputOptions(Protocol):
    """The options that describe the network's input."""

    image_size: Any
    crop_pct: Any
    interpolation: Any
    mean: Any
    std: Any
    exif: Any


def preprocessing_of(options: InputOptions, channels: int) -> Preprocessing:
    """The evaluation's preprocessing that the options describe, what is None by ImageNet's values.

    Raises UserError where `mean` and `std` do not fit `channels`, or these cannot be read from images.
    """
    if channels not in (1, 3):
        raise UserError(f"in_chans: is {channels}; images are read as 1 (grey) or 3 (colour) channels")
    if channels == 1:
        base = Preprocessing(mean=(sum(IMAGENET_MEAN) / 3,), std=(sum(IMAGENET_STD) / 3,))
    else:
        base = Preprocessing()
    given = {name: getattr(options, name) for name in _FIELDS}
    return _changed(base, {name: value for name, value in given.items() if value is not None})


def preprocessing_for(
    resolved: Resolved[Any], record: Preprocessing | None, channels: int, size: int | None = None
) -> Preprocessing:
    """The preprocessing for a model with this record: its own, with what the command line asks for otherwise.

    `size`: the side of the model's input where it is fixed, for a model without a record.
    """
    if record is None:
        chosen = preprocessing_of(resolved.options, channels)
        return chosen if size is None or resolved.asked("image_size") else replace(chosen, size=size)
    asked = {name: getattr(resolved.options, name) for name in _FIELDS if resolved.asked(name)}
    return _changed(record, {name: value for name, value in asked.items() if value is not None})


def _changed(record: Preprocessing, values: dict[str, Any]) -> Preprocessing:
    if values.get("interpolation") == "random":
        # Random is for training crops; evaluation then is bicubic, as timm's.
        values = {**values, "interpolation": "bicubic"}
    for name in ("mean", "std"):
        if name in values and len(values[name]) != record.channels:
            raise UserError(f"{name}: has {len(values[name])} values, the images have {record.channels} channels")
    if min(values.get("std", record.std)) <= 0:
        raise UserError("std: every value must be greater than 0")
    return replace(record, **{_FIELDS[name]: value for name, value in values.items()})
