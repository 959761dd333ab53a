"""`config.json` beside weights of timm or transformers: preprocessing and class names, which the weights do not say.

https://huggingface.co/docs/hub/timm; transformers' TimmWrapper keeps the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmixer.arch import ACTIVATIONS, Activation, Shape
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.weights.folder import INDEX, read_json

CONFIG = "config.json"
_BESIDE = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class HubConfig:
    """What could be used of a config.json; `notes` say what could not."""

    classes: ClassMap | None = None
    preprocessing: Preprocessing | None = None
    activation: Activation | None = None
    notes: tuple[str, ...] = ()


def read_hub_config(weights: Path, shape: Shape) -> HubConfig:
    """What the config.json beside a weight file with one of the hub's names says of a network of this shape.

    What is missing, malformed or of another shape is left to the defaults, and noted.
    """
    path = weights.with_name(CONFIG)
    if weights.name.removesuffix(INDEX) not in _BESIDE or not path.is_file():
        return HubConfig()
    try:
        config = read_json(path)
    except (ValueError, OSError) as error:
        return HubConfig(notes=(f"{path}: not used: {getattr(error, 'strerror', None) or error}",))
    notes = []
    cfg = config.get("pretrained_cfg")
    preprocessing = classes = None
    try:
        preprocessing = _preprocessing({**config, **(cfg if isinstance(cfg, Mapping) else {})}, shape.in_chans)
    except (ValueError, TypeError) as error:
        notes.append(f"{path}: its preprocessing is not used: {error}")
    try:
        classes = _classes(config, shape.num_classes)
    except ValueError as error:
        notes.append(f"{path}: its class names are not used: {error}")
    arguments = config.get("model_args")
    act_layer = arguments.get("act_layer") if isinstance(arguments, Mapping) else None
    activation = next((name for name in ACTIVATIONS if name == act_layer), None)
    return HubConfig(classes, preprocessing, activation, tuple(notes))  # type: ignore[arg-type]


def _preprocessing(cfg: Mapping[str, Any], channels: int) -> Preprocessing | None:
    """Of timm's fields, defaults in place of those that are missing; None where there is none of them."""
    fields = {name: cfg[name] for name in ("crop_pct", "interpolation", "mean", "std") if cfg.get(name) is not None}
    size = cfg.get("input_size")
    if size is not None:
        if not isinstance(size, list) or len(size) != 3 or size[1] != size[2]:
            raise ValueError(f"input_size is {str(size)[:60]}, not channels and a square")
        fields["size"] = size[1]
    if not fields:
        return None
    found = Preprocessing.from_dict({**Preprocessing().to_dict(), **fields, "exif": False})
    if found.channels != channels:
        raise ValueError(f"it is for {found.channels} channels, the weights for {channels}")
    return found


def _classes(config: Mapping[str, Any], count: int) -> ClassMap | None:
    if not count:
        return None
    names = config.get("label_names")
    by_number = config.get("id2label")
    if names is None and isinstance(by_number, Mapping):
        names = [by_number.get(str(label)) for label in range(len(by_number))]
        if names == [f"LABEL_{label}" for label in range(len(names))]:
            return None  # what transformers writes where there are no names
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("they are no list of texts")
    if len(names) != count:
        raise ValueError(f"there are {len(names)}, the weights have {count} classes")
    if len(set(names)) != len(names):
        raise ValueError("some are there twice")
    return ClassMap(tuple(names))
