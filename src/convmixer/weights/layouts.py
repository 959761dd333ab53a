"""The names of the parameters in each layout, and the maps between them; no torch.

`native`: see `convmixer.model`. `authors`: the nn.Sequential of locuslab/convmixer. `timm`: timm.models.convmixer.
`mindspore`: the model zoo's, which is the authors' under `network.` with MindSpore's names for BatchNorm.
`mmpretrain`: mmpretrain.models.backbones.convmixer with its linear head; read only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Layout = Literal["native", "authors", "timm", "mindspore", "mmpretrain"]
LAYOUTS: tuple[str, ...] = get_args(Layout)

COUNTER = "num_batches_tracked"
# More networks than that in one file are not separated: each is looked for among all names.
NETWORKS_MAX = 16
_NORM_TO_TORCH = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_NORM_TO_MINDSPORE = {foreign: native for native, foreign in _NORM_TO_TORCH.items()}
_BLOCK_PARTS = {"depthwise": "0.fn.0", "depthwise_norm": "0.fn.2", "pointwise": "1", "pointwise_norm": "3"}

# The weight of a depthwise convolution, which every layout has and few other networks; what stands before it is
# whatever wrapped the network (DistributedDataParallel, torch.compile, Lightning, a loss cell, at times in each other).
_DEPTHWISE = re.compile(r"((?:.*?\.)??)(?:(blocks|stages)\.)?\d+\.(0\.fn\.0|depthwise)\.weight")
_BLOCKS: dict[Layout, re.Pattern[str]] = {
    "native": re.compile(r"blocks\.(\d+)\.(?:depth|point)wise"),
    "timm": re.compile(r"blocks\.(\d+)\.(?:0\.fn\.[02]|[13])\."),
    "authors": re.compile(r"(\d+)\.(?:0\.fn\.[02]|[13])\."),
    "mmpretrain": re.compile(r"(?:backbone\.)?stages\.(\d+)\.(?:0\.fn\.[02]|[13])\."),
}
# First parts of the names in a network that nothing wraps; what else lies beside it is not the network's.
_ROOTS: dict[Layout, re.Pattern[str]] = {
    "native": re.compile(r"(?:stem|blocks|head)\."),
    "timm": re.compile(r"(?:stem|blocks|head)\."),
    "authors": re.compile(r"\d+\."),
    "mmpretrain": re.compile(r"(?:backbone|stem|patch_embed|stages|head)\."),
}


@dataclass(frozen=True)
class Network:
    """A ConvMixer found among names.

    `prefix`: what wraps it, empty or with a dot at its end. `names`: {name: native}, in which a name within the network
    that is of none of its parts keeps its own. `beside`: names that stand beside a network without a prefix.
    """

    prefix: str
    layout: Layout
    names: dict[str, str]
    beside: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it has BatchNorm's statistics, which copies of the trained parameters (moments, averages) lack."""
        return any(name.endswith(".running_mean") for name in self.names.values())


def _modules(layout: Layout, depth: int) -> dict[str, str]:
    """{our module: the module of that layout}, for a network of `depth` blocks."""
    if layout == "native":
        modules = {name: name for name in ("stem.conv", "stem.norm", "head")}
        return modules | {f"blocks.{i}.{part}": f"blocks.{i}.{part}" for i in range(depth) for part in _BLOCK_PARTS}
    if layout == "timm":
        modules = {"stem.conv": "stem.0", "stem.norm": "stem.2", "head": "head"}
        roots = [f"blocks.{i}" for i in range(depth)]
    elif layout == "mmpretrain":
        modules = {"stem.conv": "backbone.stem.0", "stem.norm": "backbone.stem.2", "head": "head.fc"}
        roots = [f"backbone.stages.{i}" for i in range(depth)]
    else:
        # Behind the blocks stand the pooling, the flattening and then the head.
        modules = {"stem.conv": "0", "stem.norm": "2", "head": str(depth + 5)}
        roots = [str(3 + i) for i in range(depth)]
    for i, root in enumerate(roots):
        modules |= {f"blocks.{i}.{native}": f"{root}.{foreign}" for native, foreign in _BLOCK_PARTS.items()}
    return modules


def networks(names: Iterable[str]) -> list[Network]:
    """The ConvMixers among the names of a file, by their depthwise convolutions; empty where there is none.

    Each name belongs to the one with the longest prefix. Raises ValueError for more than NETWORKS_MAX of them.
    """
    known = set(names)
    found: dict[str, Layout] = {}
    for name in known:
        if (match := _DEPTHWISE.fullmatch(name)) is None:
            continue
        prefix, listed, part = match[1], match[2], match[3]
        layout: Layout
        if part == "depthwise":
            if listed != "blocks":
                continue
            layout = "native"
        elif listed is None:
            layout = "authors"
        elif listed == "stages":
            prefix, layout = prefix.removesuffix("backbone."), "mmpretrain"
        elif f"{prefix}stem.0.weight" not in known and f"{prefix}blocks.0.weight" in known:
            prefix, layout = f"{prefix}blocks.", "authors"  # an nn.Sequential whose own name is `blocks`
        else:
            layout = "timm"
        found.setdefault(prefix, layout)
    if len(found) > NETWORKS_MAX:
        raise ValueError(f"holds {len(found)} networks")
    longest_first = sorted(found, key=len, reverse=True)
    members: dict[str, list[str]] = {prefix: [] for prefix in sorted(found)}
    for name in names:
        owner = next((prefix for prefix in longest_first if name.startswith(prefix)), None)
        if owner is not None:
            members[owner].append(name)
    return [_network(prefix, found[prefix], inside) for prefix, inside in members.items()]


def _network(prefix: str, layout: Layout, names: list[str]) -> Network:
    """The network of that layout whose names have the prefix."""
    short = {name: _torch_name(name.removeprefix(prefix)) for name in names}
    beside = tuple(name for name in names if not (prefix or _ROOTS[layout].match(name)))
    for name in beside:
        del short[name]
    blocks = {match[1] for inner in short.values() if (match := _BLOCKS[layout].match(inner))}
    modules = {foreign: native for native, foreign in _modules(layout, len(blocks)).items()}
    if layout == "mmpretrain":
        # A backbone alone has no `backbone.` before its names; older code calls the stem `patch_embed`.
        modules |= {foreign.removeprefix("backbone."): native for foreign, native in modules.items()}
        modules |= {foreign.replace("stem.", "patch_embed."): native for foreign, native in modules.items()}
    elif layout == "authors":
        modules |= _head_elsewhere(short.values(), len(blocks))
    mapped = {}
    for name, inner in short.items():
        module, _, part = inner.rpartition(".")
        mapped[name] = f"{modules[module]}.{part}" if module in modules else name
    if any(name.endswith((".gamma", ".moving_mean")) for name in short):
        layout = "mindspore"
    return Network(prefix, layout, _first_of_each(mapped), beside)


def _torch_name(name: str) -> str:
    """The name with torch's names for the parts of BatchNorm."""
    module, dot, part = name.rpartition(".")
    return f"{module}{dot}{_NORM_TO_TORCH.get(part, part)}"


def _head_elsewhere(names: Iterable[str], depth: int) -> dict[str, str]:
    """{module: head} where the nn.Sequential pools otherwise or drops features out, and the head has another position.

    Behind the blocks only the head has parameters; its position is then one of the next few.
    """
    behind = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    positions = [str(i) for i in range(depth + 3, depth + 8) if str(i) in behind]
    return {positions[0]: "head"} if len(positions) == 1 else {}


def _first_of_each(mapped: dict[str, str]) -> dict[str, str]:
    """Two names in a file may mean one parameter: the second keeps its own name."""
    taken: set[str] = set()
    result = {}
    for name, native in mapped.items():
        result[name] = name if native in taken else native
        taken.add(result[name])
    return result


def from_native(names: Iterable[str], layout: Layout, depth: int) -> dict[str, str]:
    """{our name: its name in `layout`}; MindSpore has no `num_batches_tracked`, which is left out for it."""
    if layout == "native":
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
