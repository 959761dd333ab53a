"""Options that suit the data, where neither the user nor a recipe that they named says them: `convmixer train FOLDER`.

The rows of the tables were measured where a comment says so (benchmarks/NOTES.md, "Defaults that suit the data"); the
others follow from them by the number of positions and of images.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convmixer.config.commands import FOLDER_RECIPE
from convmixer.config.options import as_text
from convmixer.config.resolved import Resolved
from convmixer.config.schema import Config
from convmixer.data.decode import jpeg_size, load_frame
from convmixer.data.limits import BadImage
from convmixer.data.reader import only_this_image
from convmixer.data.source import Source
from convmixer.machine import text_of

ORIGIN = "chosen for the data"
_SAMPLED = 48  # images whose sides are looked at


@dataclass(frozen=True)
class DataFacts:
    """`images` to train on; `side`: the median of their shorter sides in pixels; `gpu`; `bf16`: the device has it."""

    images: int
    side: int
    gpu: bool
    bf16: bool

    def __str__(self) -> str:
        device = ("a GPU" if self.gpu else "a CPU") + (" with bf16" if self.bf16 else "")
        return f"{self.images:,} images of about {self.side} pixels (shorter side), on {device}"


def facts_of(source: Source, device: torch.device, max_pixels: int) -> DataFacts:
    """What the options depend on; the sides are those of a few images spread over the set."""
    sides = []
    for index in np.unique(np.linspace(0, len(source) - 1, _SAMPLED).astype(np.int64)).tolist():
        try:
            with only_this_image():
                sides.append(_side(source.read(index), max_pixels))
        except BadImage:
            continue
    return DataFacts(len(source), int(np.median(sides)) if sides else 224, device.type == "cuda", has_bf16(device))


def _side(image: bytes | np.ndarray, max_pixels: int) -> int:
    if isinstance(image, np.ndarray):
        return min(image.shape[:2])
    return min(jpeg_size(image) or load_frame(image, max_pixels)[0].size)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 itself; one that does not takes longer with it."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", text_of("/proc/cpuinfo")))


def options_for(facts: DataFacts) -> dict[str, Any]:
    """Values of the options that depend on the data and the device."""
    values: dict[str, Any] = {**_input(facts), **_network(facts)}
    values["batch_size"] = 32 if facts.images < 1000 else 64 if not facts.gpu or facts.images < 4000 else 128
    # About as many images as were measured to be enough, in no fewer epochs than a schedule needs to be one.
    shown, least, most = (600_000, 20, 150) if facts.gpu else (58_000, 10, 60)
    values["epochs"] = int(np.clip(round(shown / facts.images), least, most))
    values["eval_every"] = max(values["epochs"] // 6, 1)
    if facts.bf16:
        values["amp_level"] = "O2"
    return values


def _input(facts: DataFacts) -> dict[str, Any]:
    """Sides of the input and of a patch. Training crops are an eighth smaller than what is evaluated (FixRes)."""
    side = facts.side
    if side < 24:
        return {"image_size": max(8, round(side / 8) * 8), "patch_size": 1}
    if side < 48:
        return {"image_size": 32, "patch_size": 2}
    if side < 96:
        return {"image_size": 72, "train_image_size": 64, "patch_size": 4}  # measured
    if facts.gpu and side >= 160:
        return {"image_size": 192, "train_image_size": 168, "patch_size": 8}
    return {"image_size": 128, "train_image_size": 112, "patch_size": 8}  # measured


def _network(facts: DataFacts) -> dict[str, Any]:
    if facts.gpu:
        return {"arch": "convmixer_256_8"}
    # Muon where a step is small: it waits for the numbers of each, which a GPU should not. The filters gain beside it.
    return {"arch": "convmixer_128_6", "filter_init": "covariance", "optimizer": "muon", "base_lr": 0.02}  # measured


def suited(
    resolved: Resolved[Config], source: Source, device: torch.device, say: Callable[[str], None]
) -> Resolved[Config]:
    """The options, with those that suit the images of `source` where nobody has said others; `say` gets the table.

    Nothing changes where a recipe was named, where weights are given, or for a run that goes on.
    """
    config = resolved.options
    is_ours = resolved.recipe is not None and Path(resolved.recipe).stem == FOLDER_RECIPE
    has_network = config.pretrained is not None or config.freeze
    if not is_ours or resolved.recipe_named or resolved.goes_on or has_network:
        return resolved
    facts = facts_of(source, device, config.max_pixels)
    values = {name: value for name, value in options_for(facts).items() if not resolved.is_explicit(name)}
    if {"image_size", "patch_size"} - values.keys():
        values.pop("train_image_size", None)
    if {"optimizer", "base_lr"} - values.keys():  # they belong together, and how filters begin with them
        together = ("optimizer", "base_lr", "filter_init")
        values = {name: value for name, value in values.items() if name not in together}
    say(f"chosen for {facts}; an option of your own or --config goes before:")
    say("  " + ", ".join(f"{name} {as_text(value)}" for name, value in values.items()))
    return resolved.changed(values, ORIGIN)
