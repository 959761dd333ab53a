"""From a policy's level to an operation's argument, as timm scales it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _enhance(f: np.ndarray, sign: np.ndarray, u: np.ndarray) -> np.ndarray:
    return f * 1.8 + 0.1


def _enhance_increasing(f: np.ndarray, sign: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.maximum(0.1, 1.0 + sign * (f * 0.9))


def _none(f: np.ndarray, sign: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.zeros_like(f)


# f: level / 10. sign: -1 or 1. u: in [0, 1), of the one operation that draws within its level.
_ARGUMENTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "AutoContrast": _none,
    "Equalize": _none,
    "Invert": _none,
    "Rotate": lambda f, sign, u: sign * (f * 30.0),
    "ShearX": lambda f, sign, u: sign * (f * 0.3),
    "ShearY": lambda f, sign, u: sign * (f * 0.3),
    "TranslateXRel": lambda f, sign, u: sign * (f * 0.45),
    "TranslateYRel": lambda f, sign, u: sign * (f * 0.45),
    "Posterize": lambda f, sign, u: np.trunc(f * 4),
    "PosterizeIncreasing": lambda f, sign, u: 4 - np.trunc(f * 4),
    "PosterizeOriginal": lambda f, sign, u: np.trunc(f * 4) + 4,
    "Solarize": lambda f, sign, u: np.minimum(256, np.trunc(f * 256)),
    "SolarizeIncreasing": lambda f, sign, u: 256 - np.minimum(256, np.trunc(f * 256)),
    "SolarizeAdd": lambda f, sign, u: np.minimum(128, np.trunc(f * 110)),
    "Color": _enhance,
    "Contrast": _enhance,
    "Brightness": _enhance,
    "Sharpness": _enhance,
    "ColorIncreasing": _enhance_increasing,
    "ContrastIncreasing": _enhance_increasing,
    "BrightnessIncreasing": _enhance_increasing,
    "SharpnessIncreasing": _enhance_increasing,
    "Desaturate": lambda f, sign, u: 1 - np.clip(0.5 + 0.5 * f, 0.5, 1.0),
    "GaussianBlur": lambda f, sign, u: np.clip(0.1 + 1.9 * f, 0.1, 2.0),
    "GaussianBlurRand": lambda f, sign, u: 0.1 + (2.0 * np.clip(f, 0.0, 1.0) - 0.1) * u,
}

# Those that have a level of timm's, and with them torchvision's shifts by pixels, whose argument `magnitudes` gives.
LEVELLED = tuple(_ARGUMENTS)
OPS = (*LEVELLED, "TranslateX", "TranslateY")


def arguments(op: str, levels: np.ndarray, signs: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Arguments (n,) float64 of operation `op` at `levels` (n,): degrees, factors, bits, thresholds, fractions, radii.

    `signs` (n,) of -1 or 1 turn the operations that have two directions; `u` (n,) uniform in [0, 1).
    """
    return _ARGUMENTS[op](levels / 10.0, signs, u)
