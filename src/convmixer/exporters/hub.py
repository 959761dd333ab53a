"""A network as a repository of the Hugging Face hub: weights and config in timm's layout, recipe, model card.

https://huggingface.co/docs/hub/timm; the fields of config.json are those that timm 1.0 writes (timm/models/_hub.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from convmixer.arch import VARIANTS, Architecture
from convmixer.config.run import FolderOptions
from convmixer.data.preprocessing import Preprocessing
from convmixer.weights.write import write_weights

if TYPE_CHECKING:
    from convmixer.weights.read import WeightFile

WEIGHTS, CONFIG, RECIPE, CARD = "model.safetensors", "config.json", "recipe.yaml", "README.md"
_TIMM_NAMES = {
    "convmixer_768_32": "convmixer_768_32",
    "convmixer_1024_20": "convmixer_1024_20_ks9_p14",
    "convmixer_1536_20": "convmixer_1536_20",
}
# Options that name places on one machine.
_LOCAL = {"data_url", "pretrained", "resume", *FolderOptions.model_fields}


@dataclass(frozen=True)
class Publication:
    """What is published: the weights, all that is known of them, and under which name."""

    repo: str
    weights: WeightFile
    architecture: Architecture
    preprocessing: Preprocessing
    recipe: Mapping[str, Any] | None = None
    license: str | None = None


def timm_name(arch: Architecture) -> str | None:
    """timm's name of a network, or None: timm builds the three published variants only, with any number of classes."""
    variant = VARIANTS.get(arch.name)
    if variant is None or replace(variant, num_classes=arch.num_classes, in_chans=arch.in_chans) != arch:
        return None
    return _TIMM_NAMES[arch.name]


def write_folder(folder: Path, item: Publication) -> None:
    """Fill an empty folder with what is uploaded. Raises UserError as `write_weights`."""
    write_weights(
        folder / WEIGHTS,
        item.weights.state,
        architecture=item.architecture,
        classes=item.weights.classes,
        preprocessing=item.preprocessing,
        extra=item.weights.metadata,
        layout="timm",
    )
    (folder / CONFIG).write_text(json.dumps(timm_config(item), indent=2) + "\n", encoding="utf-8")
    if item.recipe is not None:
        shared = {name: value for name, value in item.recipe.items() if name not in _LOCAL}
        (folder / RECIPE).write_text(yaml.safe_dump(shared, sort_keys=False), encoding="utf-8")
    (folder / CARD).write_text(model_card(item), encoding="utf-8")


def timm_config(item: Publication) -> dict[str, Any]:
    """config.json, which timm and the hub read."""
    arch, inputs = item.architecture, item.preprocessing
    config: dict[str, Any] = {
        "architecture": timm_name(arch) or arch.name,
        "num_classes": arch.num_classes,
        "num_features": arch.dim,
    }
    if item.weights.classes is not None:
        config["label_names"] = list(item.weights.classes.names)
    if arch.in_chans != 3:
        config["model_args"] = {"in_chans": arch.in_chans}
    config["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [arch.in_chans, inputs.size, inputs.size],
        "fixed_input_size": False,
        "interpolation": inputs.interpolation,
        "crop_pct": inputs.crop_pct,
        "crop_mode": "center",
        "mean": list(inputs.mean),
        "std": list(inputs.std),
        "num_classes": arch.num_classes,
        "pool_size": None,
        "first_conv": "stem.0",
        "classifier": "head",
    }
    return config


def model_card(item: Publication) -> str:
    """README.md with the header that the hub reads."""
    arch, inputs, metadata = item.architecture, item.preprocessing, item.weights.metadata
    header: dict[str, Any] = {"tags": ["image-classification", "convmixer"], "pipeline_tag": "image-classification"}
    if timm_name(item.architecture) is not None:
        header["tags"] = [*header["tags"], "timm"]
        header["library_name"] = "timm"
    if item.license is not None:
        header["license"] = item.license
    parameters = sum(t.numel() for name, t in item.weights.state.items() if name.endswith((".weight", ".bias")))
    facts = [
        f"network: ConvMixer {arch.dim}/{arch.depth}, kernel {arch.kernel_size}, patch {arch.patch_size}, "
        f"activation {arch.activation}, {parameters:,} parameters",
        f"classes: {arch.num_classes}",
        f"input: {inputs.size} x {inputs.size} pixels, {arch.in_chans} channels, {inputs.interpolation}, "
        f"centre crop {inputs.crop_pct:g}, mean {list(inputs.mean)}, deviation {list(inputs.std)}",
    ]
    if isinstance(top1 := metadata.get("top1"), float):
        facts.append(f"top-1 on the evaluation images of its training run: {top1:.4f}")
    if item.recipe is not None:
        facts.append(f"options of the training: {RECIPE}")
    return (
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# {item.repo.rpartition('/')[2]}\n\n"
        "A ConvMixer image classifier (Trockman and Kolter, [Patches Are All You Need?]"
        "(https://openreview.net/forum?id=TVHS5Y4dNvM)).\n\n"
        + "".join(f"* {fact}\n" for fact in facts)
        + f"\n## Use\n\n{_usage(item)}"
    )


def _usage(item: Publication) -> str:
    own_usage = f"```\nhf download {item.repo} --local-dir weights\nconvmixer infer PHOTO --checkpoint weights\n```\n"
    if timm_name(item.architecture) is None:
        return f"{own_usage}\ntimm reads this layout, but builds the published variants only.\n"
    return (
        f'{own_usage}\n```python\nimport timm\nmodel = timm.create_model("hf-hub:{item.repo}", pretrained=True)\n```\n'
    )
