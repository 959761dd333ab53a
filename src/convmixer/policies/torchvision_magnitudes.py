"""torchvision's magnitudes: the arguments of its RandAugment, TrivialAugmentWide and AugMix, bin by bin; no torch.

The operations are those of `levels`, but their arguments are of another scale: a straight line over `bins` values, in
which 0 changes nothing (but for AugMix's posterize), and the enhancements go both ways from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")
_PLAIN = ("Posterize", "Solarize", "AutoContrast", "Equalize")


@dataclass(frozen=True)
class MagnitudeSpace:
    """What each operation does at the maximum bin; `identity`: doing nothing is one of the operations.

    `shear`: factor. `rotate`: degrees. `enhance`: difference of the factor from 1. `posterize`: bits at the minimum and
    at the maximum bin. `translate`: fraction of the side, or with `translate_pixels` pixels, cut to whole ones.
    """

    shear: float
    rotate: float
    enhance: float
    translate: float
    posterize: tuple[int, int]
    translate_pixels: bool = False
    identity: bool = True

    @property
    def ops(self) -> tuple[str, ...]:
        return (*(("Identity",) if self.identity else ()), *SIGNED, *_PLAIN)

    def arguments(self, op: str, bins: int, height: int, width: int) -> np.ndarray:
        """Arguments float64 [bins] of `op` before its sign, for images of `height` x `width` pixels.

        Degrees, shear factors, pixels, bits, thresholds; of an enhancement what is added to a factor of 1.
        """
        match op:
            case "ShearX" | "ShearY":
                return _line(0.0, self.shear, bins)
            case "Rotate":
                return _line(0.0, self.rotate, bins)
            case "TranslateX" | "TranslateY":
                side = 1.0 if self.translate_pixels else width if op == "TranslateX" else height
                return np.trunc(_line(0.0, self.translate * side, bins))
            case "Brightness" | "Color" | "Contrast" | "Sharpness":
                return _line(0.0, self.enhance, bins)
            case "Posterize":
                first, last = self.posterize
                steps = np.arange(bins, dtype=np.float32) / np.float32((bins - 1) / (first - last))
                return first - np.round(steps).astype(np.float64)
            case "Solarize":
                return _line(255.0, 0.0, bins)
            case _:
                return np.zeros(bins)


def _line(first: float, last: float, bins: int) -> np.ndarray:
    """torch.linspace: a step in single precision, gone from both ends to the middle.

    Whole pixels are cut from it, where a last bit less is a pixel less.
    """
    step = float(np.float32((np.float32(last) - np.float32(first)) / np.float32(bins - 1)))
    at = np.arange(bins)
    line = np.where(at < bins // 2, np.float32(first) + step * at, np.float32(last) - step * (bins - 1 - at))
    return line.astype(np.float32).astype(np.float64)


# Cubuk et al., 2020 (https://arxiv.org/abs/1909.13719), as torchvision has it.
RAND_AUGMENT = MagnitudeSpace(shear=0.3, rotate=30.0, enhance=0.9, translate=150.0 / 331.0, posterize=(8, 4))
# Mueller and Hutter, 2021 (https://arxiv.org/abs/2103.10158), the wide space.
TRIVIAL_AUGMENT_WIDE = MagnitudeSpace(
    shear=0.99, rotate=135.0, enhance=0.99, translate=32.0, translate_pixels=True, posterize=(8, 2)
)
# Hendrycks et al., 2020 (https://arxiv.org/abs/1912.02781), as torchvision has it.
AUGMIX = MagnitudeSpace(shear=0.3, rotate=30.0, enhance=0.9, translate=1 / 3, posterize=(4, 0), identity=False)
AUGMIX_BINS = 10
