"""Options of what is done to a training batch."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from convmixer.config.options import as_value_error, option
from convmixer.config.preprocessing import CropOptions
from convmixer.policies.spec import parse_policy

PolicyInterpolation = Literal["random", "nearest", "bilinear", "bicubic"]
ErasingMode = Literal["const", "rand", "pixel"]
MixingMode = Literal["batch", "pair", "elem"]


class AugmentOptions(CropOptions):
    """Augmentation"""

    hflip: float = option(0.5, "probability of a horizontal flip", ge=0, le=1)
    vflip: float = option(0.0, "probability of a vertical flip", ge=0, le=1)
    auto_augment: str | None = option(
        None,
        "policy of timm (rand-m9-mstd0.5-inc1, v0) or of torchvision (randaugment-n2-m9, augmix-m3)",
        flags=("--aa",),
        other_names="augment ra",
    )
    aa_interpolation: PolicyInterpolation | None = option(
        None, "resampling of the policy's turns; left out: as interpolation where it is one of these"
    )
    re_prob: float = option(0.0, "probability of random erasing", other_names="random_erasing", ge=0, le=1)
    re_mode: ErasingMode = option("const", "erased with zeros, one colour, or noise")
    re_count: int = option(1, "maximum number of erased areas per image", ge=1, le=100)
    mixup: float = option(0.0, "alpha of mixup; 0: none", other_names="mixup_alpha", ge=0)
    cutmix: float = option(0.0, "alpha of cutmix; 0: none", other_names="cutmix_alpha", ge=0)
    mixup_prob: float = option(1.0, "probability that a batch (pair, image) is mixed", ge=0, le=1)
    mixup_mode: MixingMode = option("batch", "one mixing per batch, pair or image")
    mixup_off_epoch: float = option(0.0, "no mixing from this epoch on; 0: never off", ge=0)
    switch_prob: float = option(0.5, "probability of cutmix where both are on", ge=0, le=1)
    label_smoothing: float = option(0.0, "fraction of a label that is spread over all classes", ge=0, lt=1)

    @field_validator("auto_augment")
    @classmethod
    def _policy_is_known(cls, value: str | None) -> str | None:
        return value if value is None else as_value_error(parse_policy, value)

    @property
    def policy_interpolation(self) -> PolicyInterpolation:
        """What `auto_augment` resamples with: `aa_interpolation`, or, as timm has it, that of the training crops."""
        if self.aa_interpolation is not None:
            return self.aa_interpolation
        # The others are of a resize only: Pillow turns images by these three.
        return self.interpolation if self.interpolation in ("nearest", "bilinear", "bicubic") else "random"
