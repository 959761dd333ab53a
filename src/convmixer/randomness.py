"""Counter-based random numbers: every draw is a pure function of integers, never of a generator's past.

A draw for image 17 of epoch 3 is the same on any process, in any loader worker and after any resume, and the numbers
do not change with the NumPy version. The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood:
"Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """What a draw is for. Each purpose has a stream of its own, so that adding one leaves the others as they were."""

    ORDER = 1
    CROP = 2
    AUGMENT = 3
    ERASING = 4
    MIXING = 5
    NOISE = 6
    SUBSET = 7
    REPLACEMENT = 8
    SHARDS = 11
    WINDOW = 12
    BALANCE = 13
    BALANCED_ORDER = 14
    DROP_PATH = 15
    HOLD_OUT = 16


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashes(*counters: int | np.ndarray) -> np.ndarray:
    """64-bit hash of integer counters, broadcast against each other; uint64 of the broadcast shape."""
    arrays = np.broadcast_arrays(*(np.asarray(c, dtype=np.int64).astype(np.uint64) for c in counters))
    state = np.zeros(arrays[0].shape, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for counter in arrays:
            state = _mix(state + _GOLDEN ^ _mix(counter + _GOLDEN))
    return state


def uniforms(draws: int, *counters: int | np.ndarray) -> np.ndarray:
    """`draws` uniform float64 numbers in [0, 1) for each tuple of counters: shape `broadcast(counters) + (draws,)`."""
    with np.errstate(over="ignore"):
        steps = _GOLDEN * np.arange(1, draws + 1, dtype=np.uint64)
        bits = _mix(hashes(*counters)[..., None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(draws: int, *counters: int | np.ndarray) -> np.ndarray:
    """Standard normal float64 numbers by Box and Muller, shaped as `uniforms`."""
    u = uniforms(2 * draws, *counters)
    return np.sqrt(-2.0 * np.log1p(-u[..., :draws])) * np.cos(2.0 * np.pi * u[..., draws:])


def generator_seed(*counters: int) -> int:
    """A seed in [0, 2^63) for a library's own generator (torch's pixel noise)."""
    return int(hashes(*counters) >> np.uint64(1))
