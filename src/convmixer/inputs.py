"""Which preprocessing holds: the command line wins over the weight file's record, and that over recipe and defaults.

The same in every command, be the recipe named by the user or chosen by the command; what a recipe says in vain is
logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from convmixer.arch import Architecture, parse_arch
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
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
# In training the crops keep the option's.
_OF_EVALUATION = {"interpolation": "interpolation of evaluation"}


def default_preprocessing(channels: int) -> Preprocessing:
    """ImageNet's, for 1 or 3 channels. Raises UserError for another number, which cannot be read from images."""
    _check_channels(channels)
    if channels == 1:
        return Preprocessing(mean=(sum(IMAGENET_MEAN) / 3,), std=(sum(IMAGENET_STD) / 3,))
    return Preprocessing()


def preprocessing_of(options: Any, channels: int) -> Preprocessing:
    """The evaluation's preprocessing that the options describe, what is None by ImageNet's values.

    Raises UserError where `mean` and `std` do not fit `channels`, or these cannot be read from images.
    """
    return _changed(default_preprocessing(channels), {name: getattr(options, name) for name in _FIELDS})


def preprocessing_for(
    resolved: Resolved[Any], record: Preprocessing | None, channels: int, size: int | None = None
) -> Preprocessing:
    """The preprocessing for a model with this record: its own, with what the command line asks for otherwise.

    `channels`: those of the model's input; `size`: its side where it is fixed, for a model without a record. Raises
    UserError for what no image can be brought to.
    """
    if record is None:
        chosen = preprocessing_of(resolved.options, channels)
        return chosen if size is None or resolved.is_explicit("image_size") else replace(chosen, size=size)
    _check_channels(channels)
    if record.channels != channels:
        raise UserError(f"the model takes {channels} channels, its preprocessing has values for {record.channels}")
    return _changed(record, {name: getattr(resolved.options, name) for name in _FIELDS if resolved.is_explicit(name)})


def overruled(resolved: Resolved[Any], chosen: Preprocessing) -> list[str]:
    """What the recipe says of the preprocessing in vain, in a line, or none."""
    in_vain = [
        f"{_OF_EVALUATION.get(name, name)} {_shown(getattr(chosen, field))} ({_shown(value)})"
        for name, field in _FIELDS.items()
        if not resolved.is_default(name)
        and not resolved.is_explicit(name)
        and (value := getattr(resolved.options, name)) not in (None, "random", getattr(chosen, field))
    ]
    line = f"the weights' preprocessing holds, not the recipe's in brackets: {', '.join(in_vain)}"
    return [line] if in_vain else []


def as_options(preprocessing: Preprocessing) -> dict[str, Any]:
    """The options that say it, but for `interpolation`, which in training is that of the crops."""
    return {name: getattr(preprocessing, field) for name, field in _FIELDS.items() if name != "interpolation"}


def with_weights(
    resolved: Resolved[Config], arch: Architecture, chosen: Preprocessing | None, source: str
) -> Resolved[Config]:
    """The options of a run that starts from the weights `source`, with what these say, so that it is recorded.

    `arch`: the network; `chosen`: the preprocessing, None where the weights say none.
    """
    options = resolved.options
    values = {"in_chans": arch.in_chans} | ({} if chosen is None else as_options(chosen))
    if parse_arch(options.arch).name != arch.name:
        values["arch"] = arch.name
    return resolved.changed({name: v for name, v in values.items() if getattr(options, name) != v}, source)


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(f"in_chans: is {channels}; images are read as 1 (grey) or 3 (colour) channels")


def _changed(record: Preprocessing, values: dict[str, Any]) -> Preprocessing:
    # Random is for training crops, and says nothing of evaluation.
    values = {name: value for name, value in values.items() if value not in (None, "random")}
    for name in ("mean", "std"):
        if name in values and len(values[name]) != record.channels:
            raise UserError(f"{name}: has {len(values[name])} values, the images have {record.channels} channels")
    changed = replace(record, **{_FIELDS[name]: value for name, value in values.items()})
    if min(changed.std) <= 0:
        raise UserError("std: every value must be greater than 0")
    for name, numbers in (("mean", changed.mean), ("std", changed.std)):
        # The options have been checked: this is what weights of another program say.
        if max(numbers) > 1:
            raise UserError(
                f"the weights say a {name} of {_shown(numbers)}, of pixels in 0..255; "
                "divide by 255 and give both, --mean and --std"
            )
    return changed


def _shown(value: float | str | Sequence[float]) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(f"{part:g}" for part in value)
    return str(value)
