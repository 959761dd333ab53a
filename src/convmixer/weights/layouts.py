"""The names of the parameters in each layout, and the maps between them; no torch.

`ours`: see `convmixer.model`. `authors`: the nn.Sequential of locuslab/convmixer. `timm`: timm.models.convmixer.
`mindspore`: the model zoo's, which is the authors' under `network.` with MindSpore's names for BatchNorm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

Layout = Literal["ours", "authors", "timm", "mindspore"]
LAYOUTS: tuple[str, ...] = get_args(Layout)

COUNTER = "num_batches_tracked"
_NORM_TO_TORCH = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_NORM_TO_MINDSPORE = {theirs: ours for ours, theirs in _NORM_TO_TORCH.items()}
_BLOCK_PARTS = {"depthwise": "0.fn.0", "depthwise_norm": "0.fn.2", "pointwise": "1", "pointwise_norm": "3"}

# DistributedDataParallel, torch.compile and the model zoo's cell wrap the network, at times in each other.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|network)\.)+")
_BLOCKS: dict[Layout, re.Pattern[str]] = {
    "ours": re.compile(r"blocks\.(\d+)\.(?:depth|point)wise"),
    "timm": re.compile(r"blocks\.(\d+)\.(?:0\.fn\.[02]|[13])\."),
    "authors": re.compile(r"(\d+)\.(?:0\.fn\.[02]|[13])\."),
}


def _modules(layout: Layout, depth: int) -> dict[str, str]:
    """{our module: the module of that layout}, for a network of `depth` blocks."""
    if layout == "timm":
        modules = {"stem.conv": "stem.0", "stem.norm": "stem.2", "head": "head"}
        roots = [f"blocks.{i}" for i in range(depth)]
    else:
        # Behind the blocks stand the pooling, the flattening and then the head.
        modules = {"stem.conv": "0", "stem.norm": "2", "head": str(depth + 5)}
        roots = [str(3 + i) for i in range(depth)]
    for i, root in enumerate(roots):
        modules |= {f"blocks.{i}.{ours}": f"{root}.{theirs}" for ours, theirs in _BLOCK_PARTS.items()}
    return modules


def _unwrapped(name: str) -> str:
    """A name without its wrappers' prefixes, with torch's names for the parts of BatchNorm."""
    module, _, part = _WRAPPERS.sub("", name).rpartition(".")
    return f"{module}.{_NORM_TO_TORCH.get(part, part)}"


def _blocks(pattern: re.Pattern[str], names: Iterable[str]) -> set[str]:
    return {match[1] for name in names if (match := pattern.match(name))}


def to_ours(names: Iterable[str]) -> tuple[Layout, dict[str, str]] | None:
    """Layout of a file by the names in it, and {name in the file: our name}; None where no block of a ConvMixer is met.

    A name that belongs to no part of the network, or to one already met, is mapped to itself, for the strict check of
    `convmixer.weights.load` to find. In MindSpore files the optimizer's and the trainer's entries are left out.
    """
    unwrapped = {name: _unwrapped(name) for name in names}
    blocks = {layout: _blocks(pattern, unwrapped.values()) for layout, pattern in _BLOCKS.items()}
    layout = next((layout for layout in blocks if blocks[layout]), None)
    if layout is None:
        return None
    mindspore = layout == "authors" and any(name.endswith((".gamma", ".moving_mean")) for name in unwrapped)
    if mindspore:
        unwrapped = {name: short for name, short in unwrapped.items() if short[0].isdigit()}
    if layout == "ours":
        return layout, _first_of_each(unwrapped)

    modules = {theirs: ours for ours, theirs in _modules(layout, len(blocks[layout])).items()}
    mapped = {}
    for name, short in unwrapped.items():
        module, _, part = short.rpartition(".")
        mapped[name] = f"{modules[module]}.{part}" if module in modules else name
    return "mindspore" if mindspore else layout, _first_of_each(mapped)


def _first_of_each(mapped: dict[str, str]) -> dict[str, str]:
    """Two names in a file may mean one parameter (`0.weight`, `module.0.weight`): the second keeps its own name."""
    taken: set[str] = set()
    result = {}
    for name, ours in mapped.items():
        result[name] = name if ours in taken else ours
        taken.add(result[name])
    return result


def from_ours(names: Iterable[str], layout: Layout, depth: int) -> dict[str, str]:
    """{our name: its name in `layout`}; MindSpore has no `num_batches_tracked`, which is left out for it."""
    if layout == "ours":
        return {name: name for name in names}
    modules = _modules(layout, depth)
    result = {}
    for name in names:
        module, _, part = name.rpartition(".")
        if layout != "mindspore":
            result[name] = f"{modules[module]}.{part}"
        elif part != COUNTER:
            part = _NORM_TO_MINDSPORE[part] if module.endswith("norm") else part
            result[name] = f"network.{modules[module]}.{part}"
    return result
