"""How an image becomes the network's input: one record, kept with the weights, used by every way of running them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation: shorter side to floor(size / crop_pct), centre crop of size x size, then (x / 255 - mean) / std.

    `mean` and `std` have one value a channel; one channel means that images are read as grey. `exif`: turn the image
    as its EXIF orientation says.
    """

    size: int = 224
    crop_pct: float = 0.96
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    exif: bool = False

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocessing:
        """The record that `to_dict` wrote; unknown keys of later versions are refused by the constructor."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        return cls(**values)
