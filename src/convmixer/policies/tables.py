"""The tables of operations that RandAugment and AutoAugment choose from, under the names that timm gives them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One operation of a policy: tried with `probability`, at `level` (0 to 10 in the published policies)."""

    op: str
    probability: float
    level: float


Branch = tuple[Step, ...]

RAND_OPS = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast"),
    *("Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)

# `inc1`: these operations grow stronger with the level; the plain ones cross "no change" half-way or weaken.
_INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
RAND_INCREASING_OPS = tuple(f"{op}Increasing" if op in _INCREASING else op for op in RAND_OPS)

# The sets that a `t` section names: op -> weight, or None where all weigh the same and may come twice.
RAND_SETS: dict[str, dict[str, float] | tuple[str, ...]] = {
    "weights": {
        "Rotate": 3.0,
        "ShearX": 2.0,
        "ShearY": 2.0,
        "TranslateXRel": 1.0,
        "TranslateYRel": 1.0,
        "ColorIncreasing": 0.25,
        "SharpnessIncreasing": 0.25,
        "AutoContrast": 0.25,
        "SolarizeIncreasing": 0.05,
        "SolarizeAdd": 0.05,
        "ContrastIncreasing": 0.05,
        "BrightnessIncreasing": 0.05,
        "Equalize": 0.05,
        "PosterizeIncreasing": 0.05,
        "Invert": 0.05,
    },
    "3a": ("SolarizeIncreasing", "Desaturate", "GaussianBlur"),
    "3aw": {
        "SolarizeIncreasing": 6.0,
        "Desaturate": 6.0,
        "GaussianBlur": 6.0,
        "Rotate": 3.0,
        "ShearX": 2.0,
        "ShearY": 2.0,
        "PosterizeIncreasing": 1.0,
        "AutoContrast": 1.0,
        "ColorIncreasing": 1.0,
        "SharpnessIncreasing": 1.0,
        "ContrastIncreasing": 1.0,
        "BrightnessIncreasing": 1.0,
        "Equalize": 1.0,
        "Invert": 1.0,
    },
}

# Cubuk et al., "AutoAugment", 2019, table 9 (ImageNet): op, probability, level.
_ORIGINAL = """
PosterizeOriginal .4 8, Rotate .6 9
Solarize .6 5, AutoContrast .6 5
Equalize .8 8, Equalize .6 3
PosterizeOriginal .6 7, PosterizeOriginal .6 6
Equalize .4 7, Solarize .2 4
Equalize .4 4, Rotate .8 8
Solarize .6 3, Equalize .6 7
PosterizeOriginal .8 5, Equalize 1 2
Rotate .2 3, Solarize .6 8
Equalize .6 8, PosterizeOriginal .4 6
Rotate .8 8, Color .4 0
Rotate .4 9, Equalize .6 2
Equalize 0 7, Equalize .8 8
Invert .6 4, Equalize 1 8
Color .6 4, Contrast 1 8
Rotate .8 8, Color 1 2
Color .8 8, Solarize .8 7
Sharpness .4 7, Invert .6 8
ShearX .6 5, Equalize 1 9
Color .4 0, Equalize .6 3
Equalize .4 7, Solarize .2 4
Solarize .6 5, AutoContrast .6 5
Invert .6 4, Equalize 1 8
Color .6 4, Contrast 1 8
Equalize .8 8, Equalize .6 3
"""

# The policy of the EfficientNet code for TPUs, in no paper.
_V0 = """
Equalize .8 1, ShearY .8 4
Color .4 9, Equalize .6 3
Color .4 1, Rotate .6 8
Solarize .8 3, Equalize .4 7
Solarize .4 2, Solarize .6 2
Color .2 0, Equalize .8 8
Equalize .4 8, SolarizeAdd .8 3
ShearX .2 9, Rotate .6 8
Color .6 1, Equalize 1 2
Invert .4 9, Rotate .6 0
Equalize 1 9, ShearY .6 3
Color .4 7, Equalize .6 0
Posterize .4 6, AutoContrast .4 7
Solarize .6 8, Color .6 9
Solarize .2 4, Rotate .8 9
Rotate 1 7, TranslateYRel .8 9
ShearX 0 0, Solarize .8 4
ShearY .8 0, Color .6 4
Color 1 0, Rotate .6 2
Equalize .8 4, Equalize 0 8
Equalize 1 4, AutoContrast .6 2
ShearY .4 7, SolarizeAdd .6 7
Posterize .8 2, Solarize .6 10
Solarize .6 8, Equalize .6 1
Color .8 6, Rotate .4 5
"""

# Touvron et al., "DeiT III", 2022: one of three, always.
_THREE = """
Solarize 1 5
Desaturate 1 10
GaussianBlurRand 1 10
"""


def _branches(table: str, posterize: str | None = None) -> tuple[Branch, ...]:
    """The rows of a table; with `posterize`, that operation stands in place of the table's posterize."""

    def step(text: str) -> Step:
        op, probability, level = text.split()
        return Step(posterize if posterize and op.startswith("Posterize") else op, float(probability), float(level))

    return tuple(tuple(step(text) for text in row.split(",")) for row in table.strip().splitlines())


AUTO_POLICIES = {
    "original": _branches(_ORIGINAL),
    "originalr": _branches(_ORIGINAL, posterize="PosterizeIncreasing"),
    "v0": _branches(_V0),
    "v0r": _branches(_V0, posterize="PosterizeIncreasing"),
    "3a": _branches(_THREE),
}
