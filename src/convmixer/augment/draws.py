"""What a policy does to each image, drawn on the host: pure functions of (seed, epoch, index); no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convmixer.policies.spec import AugMix, AutoAugment, BinnedAugment, Policy, RandAugment, fills_with_black
from convmixer.policies.timm_magnitudes import OPS, arguments
from convmixer.policies.torchvision_magnitudes import ENHANCEMENTS, SIGNED
from convmixer.randomness import Stream, hashes, normals, uniforms

if TYPE_CHECKING:
    from convmixer.config.augment import AugmentOptions, PolicyInterpolation

NO_OP = -1
RESAMPLES = ("nearest", "bilinear", "bicubic")
# Pillow cuts the fraction off. A flat area must not fall by a level because float32 weights sum to 1 - 1e-7.
ROUNDING = 2.0**-11


@dataclass(frozen=True)
class Layer:
    """One operation for each image of a batch: `ops` (b,) indices into OPS or NO_OP, `args` (b,), and `resample` (b,),
    indices into RESAMPLES of what geometric operations are made with."""

    ops: np.ndarray
    args: np.ndarray
    resample: np.ndarray


def fill_levels(policy: Policy, mean: tuple[float, ...]) -> np.ndarray:
    """Levels (c,) float32 of what geometric operations show outside an image: black or, rounded as timm does, `mean`.

    `mean`: a fraction of 1 per channel.
    """
    colour = (0.0,) * len(mean) if fills_with_black(policy) else mean
    return np.array([min(255, round(255 * value)) for value in colour], dtype=np.float32)


def draw_flips(options: AugmentOptions, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Whether each of the images `indices` (b,) is turned left to right, and top to bottom: bool (2, b)."""
    flips: np.ndarray = uniforms(2, Stream.AUGMENT, seed, epoch, indices) < (options.hflip, options.vflip)
    return flips.T


def draw_layers(
    policy: RandAugment | AutoAugment | BinnedAugment,
    interpolation: PolicyInterpolation,
    size: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    indices: np.ndarray,
) -> Iterator[Layer]:
    """The operations of the images `indices` (b,) of the data set, in the order in which they are applied.

    `size`: height and width of the images in pixels. A pure function of its arguments, image by image: neither the
    batch nor the process plays a part.
    """
    if isinstance(policy, BinnedAugment):
        yield from _draw_binned(policy, interpolation, size, seed, epoch, indices, chain=0)
        return
    for number, (ops, probabilities, levels) in enumerate(_choose(policy, seed, epoch, indices), start=1):
        counters = (Stream.AUGMENT, seed, epoch, indices, number)
        applied, sign, cubic, level, within = uniforms(5, *counters, 0).T
        if policy.level_std == np.inf:
            levels = levels * level
        elif policy.level_std > 0:
            levels = levels + policy.level_std * normals(1, *counters, 1)[:, 0]
        levels = np.clip(levels, 0.0, policy.level_max)
        signs = np.where(sign < 0.5, -1.0, 1.0)
        args = np.zeros(len(indices))
        for op in np.unique(ops[ops != NO_OP]):
            rows = ops == op
            args[rows] = arguments(OPS[op], levels[rows], signs[rows], within[rows])
        yield Layer(np.where(applied < probabilities, ops, NO_OP), args, _resample(interpolation, cubic))


def draw_chain(
    policy: AugMix,
    chain: int,
    interpolation: PolicyInterpolation,
    size: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    indices: np.ndarray,
) -> Iterator[Layer]:
    """The operations of AugMix's copy number `chain` (from 0) of each image, as `draw_layers`."""
    depth = np.full(len(indices), policy.chain.layers)
    if policy.depth is None:
        depth = 1 + (uniforms(1, Stream.AUGMENT, seed, epoch, indices, chain, 0, 3)[:, 0] * depth).astype(np.int64)
    layers = _draw_binned(policy.chain, interpolation, size, seed, epoch, indices, chain)
    for number, layer in enumerate(layers):
        yield Layer(np.where(number < depth, layer.ops, NO_OP), layer.args, layer.resample)


def draw_mixture(policy: AugMix, *, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Weights float32 (b, 1 + width) of each image and of its copies, which add up to 1."""
    weights = np.empty((len(indices), 1 + policy.width), dtype=np.float32)
    for row, key in enumerate(hashes(Stream.AUGMENT, seed, epoch, indices, 0, 0, 4)):
        random = np.random.Generator(np.random.Philox(key=int(key)))
        image, copies = random.dirichlet([policy.alpha] * 2)
        weights[row, 0] = image
        weights[row, 1:] = copies * random.dirichlet([policy.alpha] * policy.width)
    return weights


def _draw_binned(
    policy: BinnedAugment,
    interpolation: PolicyInterpolation,
    size: tuple[int, int],
    seed: int,
    epoch: int,
    indices: np.ndarray,
    chain: int,
) -> Iterator[Layer]:
    for number in range(1, policy.layers + 1):
        draws = uniforms(4, Stream.AUGMENT, seed, epoch, indices, chain, number, 2)
        chosen, at, sign, cubic = draws.T
        names = (chosen * len(policy.ops)).astype(np.int64)
        bins = policy.first + (at * (policy.last - policy.first + 1)).astype(np.int64)
        ops, args = np.full(len(indices), NO_OP), np.zeros(len(indices))
        for which in np.unique(names):
            op, rows = policy.ops[which], names == which
            if op == "Identity":
                continue
            values = policy.space.arguments(op, policy.bins, *size)[bins[rows]]
            if op in SIGNED:
                values = np.where(sign[rows] < 0.5, -values, values)
            ops[rows] = OPS.index(op)
            args[rows] = values + 1.0 if op in ENHANCEMENTS else values
        yield Layer(ops, args, _resample(interpolation, cubic))


def _resample(interpolation: PolicyInterpolation, cubic: np.ndarray) -> np.ndarray:
    """Index into RESAMPLES for each image; `cubic` (b,) uniform draws."""
    if interpolation != "random":
        return np.full(len(cubic), RESAMPLES.index(interpolation))
    return np.where(cubic < 0.5, RESAMPLES.index("bicubic"), RESAMPLES.index("bilinear"))


def _choose(
    policy: RandAugment | AutoAugment, seed: int, epoch: int, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each layer: operation, probability and level (each (b,)) that the policy gives to each image."""
    counters = (Stream.AUGMENT, seed, epoch, indices, 0)
    if isinstance(policy, RandAugment):
        known = np.array([OPS.index(op) for op in policy.ops])
        if policy.weights is None:
            chosen = (uniforms(policy.layers, *counters) * len(known)).astype(np.int64)
        else:
            # The minimum of exponential waiting times at rates w is each with probability w / sum(w), and so on among
            # the rest: a weighted draw without replacement, in order.
            waiting = -np.log1p(-uniforms(len(known), *counters)) / np.array(policy.weights)
            chosen = np.argsort(waiting, axis=1)[:, : policy.layers]
        for column in chosen.T:
            yield known[column], np.full(len(indices), policy.probability), np.full(len(indices), policy.level)
        return
    branch = (uniforms(1, *counters)[:, 0] * len(policy.branches)).astype(np.int64)
    for depth in range(max(len(steps) for steps in policy.branches)):
        steps = [steps[depth] if depth < len(steps) else None for steps in policy.branches]
        ops = np.array([OPS.index(step.op) if step else NO_OP for step in steps])
        probabilities = np.array([step.probability if step else 0.0 for step in steps])
        levels = np.array([step.level if step else 0.0 for step in steps])
        yield ops[branch], probabilities[branch], levels[branch]
