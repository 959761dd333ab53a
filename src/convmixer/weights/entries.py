"""Which network of a file is taken: it may hold several, averages of one, and moments of an optimizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convmixer.errors import UserError
from convmixer.printable import printable
from convmixer.weights.layouts import COUNTER, NETWORKS_MAX, Layout, Network, networks

# Tensors in one file; 200 blocks with Adam's moments and averages have 11,000.
TENSORS_MAX = 20_000
_DEPTH = 4  # mappings within mappings that are looked into
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|shadow)(?:[._]|$)")
# mmengine and Lightning put the averaged weights in the location of the plain ones, and these beside them.
_ASIDE = {"ema_state_dict": "message_hub", "current_model_state": "averaging_state"}
_SHOWN = 4


@dataclass(frozen=True)
class Entry:
    """A network in a file: `location` is the path to its mapping, `tensors` that mapping, `network` what its names say.

    `aside`: what its program goes on training from, beside the averages that it saves in the usual place.
    """

    location: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]
    network: Network
    aside: bool = False

    @property
    def label(self) -> str:
        """The entry and the wrapper's prefix, as `--entry` takes them."""
        return ".".join(filter(None, [*self.location, self.network.prefix.rstrip(".")]))

    @property
    def averaged(self) -> bool:
        counter = self.network.prefix.removesuffix("module.") + "n_averaged"  # of torch.optim.swa_utils
        return not self.aside and (_AVERAGED.search(self.label) is not None or counter in self.tensors)

    def is_called(self, name: str) -> bool:
        """Whether a user's name for it is this one's label or a part of it, between dots."""
        return f".{name.strip('.')}." in f".{self.label}."

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors under our names."""
        return {native: self.tensors[name] for name, native in self.network.names.items()}

    def same_as(self, other: Entry) -> bool:
        """Whether both hold equal tensors, as a module that is an attribute twice."""
        own, others = self.state(), other.state()
        return own.keys() == others.keys() and all(_equal(own[name], others[name]) for name in own)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@dataclass(frozen=True)
class ChosenNetwork:
    """`state`: tensors under our names, `layout` and `location` where they came from, `notes` what was not taken."""

    state: dict[str, torch.Tensor]
    layout: Layout
    location: str
    notes: tuple[str, ...]


def choose(path: Path, content: Mapping[str, Any], wanted: str | None) -> ChosenNetwork:
    """The network to use, and what the user should know of it.

    Averaged weights come before plain ones; where the averages lack BatchNorm's statistics, which are no trained
    parameters, those of the plain weights are theirs. Raises UserError where no network is found, or where several are
    and `wanted` does not say which.
    """
    found = _entries(path, content)
    if wanted is None:
        called = [entry for entry in found if not entry.aside] or found
    else:
        called = [entry for entry in found if entry.label == wanted] or [e for e in found if e.is_called(wanted)]
    if not called:
        raise UserError(f"{path}: has no network under {wanted!r}; it holds {_labels(found)}.")
    # Copies of the parameters without statistics are an optimizer's moments, unless they are all there is.
    entry = _the_one(path, [e for e in called if e.averaged] or [e for e in called if e.network.whole] or called)
    plain = [e for e in found if e.network.whole and not e.averaged and e is not entry]
    state, layout, taken, notes = entry.state(), entry.network.layout, set(entry.network.names), []
    if entry.averaged and plain:
        notes.append(f"{path}: the averaged weights ({_shown([entry.label])}) are taken; --entry names others")
        if not entry.network.whole:
            rest = _the_one(path, plain)
            state, layout = _with_statistics(state, rest.state()), rest.network.layout
            taken |= rest.network.names.keys()
    state |= {name: entry.tensors[name] for name in _added(entry)}
    unused = _unused(content, entry, taken.union(_added(entry)))
    if unused:
        notes.append(f"{path}: not used: {_shown(unused)}")
    return ChosenNetwork(state, layout, ".".join(entry.location), tuple(notes))


def _with_statistics(averages: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The averages in the order of the plain weights, whose statistics join them."""
    kept = (".running_mean", ".running_var", f".{COUNTER}")
    return averages | {name: tensor for name, tensor in plain.items() if name.endswith(kept)}


def _entries(path: Path, content: Mapping[str, Any]) -> list[Entry]:
    found: list[Entry] = []
    count = 0
    for location, tensors in mappings_of(content):
        count += len(tensors)
        if count > TENSORS_MAX:
            raise UserError(f"{path}: holds more than {TENSORS_MAX:,} tensors, which no ConvMixer has.")
        aside = bool(location) and _ASIDE.get(location[0]) in content
        try:
            found += [Entry(location, tensors, network, aside) for network in networks(tensors)]
        except ValueError as error:
            raise UserError(f"{path}: {error}; save the state_dict of one.") from None
        if len(found) > NETWORKS_MAX:
            raise UserError(f"{path}: holds {len(found)} networks; save the state_dict of one.")
    if not count:
        raise UserError(f"{path}: holds no tensors; no weights are in it.")
    if not found:
        raise UserError(f"{path}: holds {count} tensors, but not those of a ConvMixer.")
    return found


def mappings_of(content: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Each mapping in the file that has tensors by name, with the path to it, each object once."""
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    seen = set()
    while waiting:
        location, mapping = waiting.pop()
        seen.add(id(mapping))
        tensors = {
            name: v.detach() for name, v in mapping.items() if isinstance(name, str) and isinstance(v, torch.Tensor)
        }
        if tensors:
            yield location, tensors
        if len(location) < _DEPTH:
            inner = [(name, v) for name, v in mapping.items() if isinstance(v, Mapping) and id(v) not in seen]
            waiting += [((*location, str(name)), value) for name, value in reversed(inner)]


def _the_one(path: Path, entries: list[Entry]) -> Entry:
    """The only one of them, or the first of equal ones."""
    first, *others = entries
    different = [entry for entry in others if not entry.same_as(first)]
    if different:
        raise UserError(f"{path}: holds several networks, {_labels([first, *different])}; --entry NAME picks one.")
    return first


def _added(entry: Entry) -> list[str]:
    """What stands beside the parts of an unwrapped network, for the strict check to refuse.

    A single number is a counter, and MindSpore's trainer keeps all that it has there.
    """
    if entry.network.layout == "mindspore":
        return []
    return [name for name in entry.network.beside if entry.tensors[name].numel() > 1]


def _unused(content: Mapping[str, Any], entry: Entry, taken: set[str]) -> list[str]:
    """Entries and tensors that are not read; plain values are what the file says of itself."""
    used = entry.location[0] if entry.location else None
    beside = [name for name, value in content.items() if not isinstance(value, str | int | float | None)]
    unused = [name for name in beside if name != used and (entry.location or name not in taken)]
    return unused + [name for name in entry.tensors if entry.location and name not in taken]


def _labels(entries: Iterable[Entry]) -> str:
    return _shown([entry.label or "(the file itself)" for entry in entries])


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name)[:80] for name in names[:_SHOWN]) + more
