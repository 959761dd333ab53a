"""The options of augmentation as one record, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["random", "nearest", "bilinear", "bicubic"]
ErasingMode = Literal["const", "rand", "pixel"]
MixingMode = Literal["batch", "pair", "elem"]


@dataclass(frozen=True)
class AugmentSettings:
    """What is done to a training batch; the defaults flip left and right only. Bounds are the configuration's.

    auto_augment       spec of `convmixer.augment.spec`, or None
    aa_interpolation   of its geometric operations; random: bilinear or bicubic, drawn for each
    hflip, vflip       probability of each flip
    re_prob, re_mode   probability of erasing an image; with zeros, a colour a box, or noise a pixel (normalised values)
    re_count           boxes an image, at most
    mixup, cutmix      alpha of the Beta distribution of each, 0: off; with both, cutmix has probability `switch_prob`
    mixup_prob         probability of mixing a batch (or a pair, or an image: `mixup_mode`)
    mixup_off_epoch    epoch from which mixing is off; 0: never
    label_smoothing    share of the target that is spread over all classes
    """

    auto_augment: str | None = None
    aa_interpolation: Interpolation = "random"
    hflip: float = 0.5
    vflip: float = 0.0
    re_prob: float = 0.0
    re_mode: ErasingMode = "const"
    re_count: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float = 1.0
    mixup_mode: MixingMode = "batch"
    mixup_off_epoch: float = 0.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.0
