"""Policies of augmentation by their spec strings, read and checked without torch: timm's family and torchvision's.

timm's, whose geometric operations show the mean colour outside the image:

rand-m9-mstd0.5-inc1    RandAugment (Cubuk et al., 2020, https://arxiv.org/abs/1909.13719)
    m     level of every operation, an integer (10)          n    operations per image, 1 to 100 (2)
    mstd  standard deviation of the level (0); above 100: uniform between 0 and m
    mmax  upper bound of the level (10)                      p    probability of each operation (0.5)
    inc   1: operations that grow stronger with the level    t    set of operations: weights, 3a, 3aw
original, originalr, v0, v0r, 3a, each with -mstd or without    AutoAugment (https://arxiv.org/abs/1805.09501)

torchvision's, that of the papers and of the authors' CIFAR-10 script, which show black outside the image:

randaugment-n2-m12    torchvision.transforms.RandAugment(num_ops=2, magnitude=12)
    n     operations per image, 1 to 100 (2)      m    magnitude, below bins (9)      bins    magnitudes (31)
trivialaugmentwide    torchvision.transforms.TrivialAugmentWide()
    bins  magnitudes (31)
augmix-m3-w3          torchvision.transforms.AugMix(severity=3, mixture_width=3)
    m     severity, 1 to 10 (3)                   w    chains per image, 1 to 10 (3)
    d     operations per chain, 1 to 10 (1 to 3, drawn for each)
    a     alpha of the mixing (1)                 all  0: without brightness, colour, contrast and sharpness (1)
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from convmixer.errors import UserError
from convmixer.policies.tables import AUTO_POLICIES, RAND_INCREASING_OPS, RAND_OPS, RAND_SETS, Branch
from convmixer.policies.torchvision_magnitudes import (
    AUGMIX,
    AUGMIX_BINS,
    ENHANCEMENTS,
    RAND_AUGMENT,
    TRIVIAL_AUGMENT_WIDE,
    MagnitudeSpace,
)

MAX_LEVEL = 10.0
_UNIFORM_ABOVE = 100.0


@dataclass(frozen=True)
class RandAugment:
    """Each image gets `layers` of `ops`, each applied with `probability`.

    `weights` are those of the choice among `ops`, and then no operation comes twice; None: all alike, with repeats.
    `level_std` of infinity: the level is uniform between 0 and `level`.
    """

    ops: tuple[str, ...] = RAND_OPS
    weights: tuple[float, ...] | None = None
    layers: int = 2
    probability: float = 0.5
    level: float = 10.0
    level_std: float = 0.0
    level_max: float = MAX_LEVEL


@dataclass(frozen=True)
class AutoAugment:
    """Each image gets one of `branches`, all alike, and tries its steps one after another."""

    branches: tuple[Branch, ...]
    level_std: float = 0.0
    level_max: float = MAX_LEVEL


@dataclass(frozen=True)
class BinnedAugment:
    """Each image gets `layers` of `ops`, with repeats, each at a bin from `first` to `last` of `bins` of `space`."""

    space: MagnitudeSpace
    ops: tuple[str, ...]
    layers: int
    bins: int
    first: int
    last: int


@dataclass(frozen=True)
class AugMix:
    """Each image is mixed with `width` copies of itself, each changed by `chain` of one to `chain.layers` operations.

    With `depth` each chain has so many. The mixing is Dirichlet's with `alpha`, of copies and of these with the image.
    """

    chain: BinnedAugment
    width: int
    depth: int | None
    alpha: float


Policy = RandAugment | AutoAugment | BinnedAugment | AugMix

_RAND_SECTIONS = ("m", "n", "p", "mstd", "mmax", "inc")
_NAMES = ("rand", *AUTO_POLICIES, "randaugment", "trivialaugmentwide", "augmix")
_MAX_DEPTH = 3  # of AugMix's chains, where no depth is given


def parse_policy(spec: str) -> Policy:
    """The policy that `spec` names. Raises UserError that names the wrong section and the nearest right one."""
    name, *sections = spec.split("-")
    if name == "rand":
        return _parse_rand(spec, sections)
    if name in AUTO_POLICIES:
        values = _read_sections(spec, sections, ("mstd",))
        return AutoAugment(AUTO_POLICIES[name], level_std=values.get("mstd", 0.0))
    if name in _TORCHVISION:
        return _TORCHVISION[name](spec, sections)
    raise UserError(f"auto_augment: {spec!r} names no policy; {_hint(name, _NAMES)}")


def fills_with_black(policy: Policy) -> bool:
    """Whether geometric operations show black outside the image, as torchvision's, or the mean colour, as timm's."""
    return isinstance(policy, BinnedAugment | AugMix)


def _parse_rand_augment(spec: str, sections: list[str]) -> BinnedAugment:
    values = _read_sections(spec, sections, ("n", "m", "bins"))
    bins, magnitude = int(values.get("bins", 31)), int(values.get("m", 9))
    if magnitude >= bins:
        raise UserError(f"auto_augment: {spec!r}: m is {magnitude}, it must be below the number of magnitudes, {bins}.")
    return BinnedAugment(RAND_AUGMENT, RAND_AUGMENT.ops, int(values.get("n", 2)), bins, magnitude, magnitude)


def _parse_trivial_augment(spec: str, sections: list[str]) -> BinnedAugment:
    bins = int(_read_sections(spec, sections, ("bins",)).get("bins", 31))
    return BinnedAugment(TRIVIAL_AUGMENT_WIDE, TRIVIAL_AUGMENT_WIDE.ops, 1, bins, 0, bins - 1)


def _parse_augmix(spec: str, sections: list[str]) -> AugMix:
    values = _read_sections(spec, sections, ("m", "w", "d", "a", "all"))
    severity = int(values.get("m", 3))
    if not 1 <= severity <= AUGMIX_BINS:
        raise UserError(f"auto_augment: {spec!r}: m is {severity}; augmix takes a severity from 1 to {AUGMIX_BINS}.")
    ops = tuple(op for op in AUGMIX.ops if values.get("all", 1) or op not in ENHANCEMENTS)
    depth = int(values["d"]) if "d" in values else None
    chain = BinnedAugment(AUGMIX, ops, depth or _MAX_DEPTH, AUGMIX_BINS, 0, severity - 1)
    return AugMix(chain, int(values.get("w", 3)), depth, values.get("a", 1.0))


_TORCHVISION: dict[str, Callable[[str, list[str]], Policy]] = {
    "randaugment": _parse_rand_augment,
    "trivialaugmentwide": _parse_trivial_augment,
    "augmix": _parse_augmix,
}


def _parse_rand(spec: str, sections: list[str]) -> RandAugment:
    sets = [section[1:] for section in sections if section.startswith("t")]
    values = _read_sections(spec, [s for s in sections if not s.startswith("t")], _RAND_SECTIONS)
    policy = RandAugment(
        ops=RAND_INCREASING_OPS if values.get("inc") else RAND_OPS,
        layers=int(values.get("n", 2)),
        probability=values.get("p", 0.5),
        level=values.get("m", 10.0),
        level_std=values.get("mstd", 0.0),
        level_max=values.get("mmax", MAX_LEVEL),
    )
    if policy.level_std > _UNIFORM_ABOVE:
        policy = replace(policy, level_std=math.inf)
    if not sets:
        return policy
    if len(sets) > 1 or sets[0] not in RAND_SETS:
        raise UserError(f"auto_augment: {spec!r}: section 't{sets[-1]}': {_hint('t' + sets[-1], _SET_SECTIONS)}")
    chosen = RAND_SETS[sets[0]]
    if isinstance(chosen, tuple):
        return replace(policy, ops=chosen)
    if policy.layers > len(chosen):
        raise UserError(f"auto_augment: {spec!r}: n is at most {len(chosen)} with t{sets[0]}, which never repeats one.")
    return replace(policy, ops=tuple(chosen), weights=tuple(chosen.values()))


# key -> form of its value, what it must be, and whether it is that.
_CHECKS: dict[str, tuple[str, str, Callable[[float], bool]]] = {
    "m": (r"[0-9]+", "an integer from 0 to 1000", lambda value: value <= 1000),
    "n": (r"[0-9]+", "an integer from 1 to 100", lambda value: 1 <= value <= 100),
    "p": (r"[0-9]+(?:\.[0-9]*)?", "a probability from 0 to 1", lambda value: value <= 1),
    "mstd": (r"[0-9]+(?:\.[0-9]*)?", "a number from 0", lambda value: True),
    "mmax": (r"[0-9]+", "an integer from 1 to 1000", lambda value: 1 <= value <= 1000),
    "inc": (r"[01]", "0 or 1", lambda value: True),
    "bins": (r"[0-9]+", "an integer from 2 to 1000", lambda value: 2 <= value <= 1000),
    "w": (r"[0-9]+", "an integer from 1 to 10", lambda value: 1 <= value <= 10),
    "d": (r"[0-9]+", "an integer from 1 to 10", lambda value: 1 <= value <= 10),
    "a": (r"[0-9]+(?:\.[0-9]*)?", "a number above 0 and up to 1000", lambda value: 0 < value <= 1000),
    "all": (r"[01]", "0 or 1", lambda value: True),
}
_SET_SECTIONS = tuple(f"t{name}" for name in RAND_SETS)


def _read_sections(spec: str, sections: list[str], keys: tuple[str, ...]) -> dict[str, float]:
    """Key and number of each section; UserError for another key, a repeated one, or a number out of bounds."""
    values: dict[str, float] = {}
    for section in sections:
        match = re.fullmatch(r"([a-z]*)(.*)", section, re.DOTALL)
        assert match is not None
        key, value = match[1], match[2]
        if key not in keys:
            known = (*keys, *_SET_SECTIONS) if keys == _RAND_SECTIONS else keys
            raise UserError(f"auto_augment: {spec!r}: section {section!r}: {_hint(key, known)}")
        if key in values:
            raise UserError(f"auto_augment: {spec!r}: {key!r} stands twice.")
        form, wanted, within = _CHECKS[key]
        if not re.fullmatch(form, value) or not within(float(value)):
            raise UserError(f"auto_augment: {spec!r}: section {section!r}: {key} takes {wanted}.")
        values[key] = float(value)
    return values


def _hint(given: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
