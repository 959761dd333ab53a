"""Operations on the levels of a batch, equal to Pillow's ImageOps and ImageEnhance as timm calls them.

Each takes images (n, c, h, w), float32 holding the integers 0..255, c 1 or 3, and one argument per image (n,) float32,
and returns new images of the same kind. Pillow cuts fractions off, and so does this.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad


def _each(args: Tensor) -> Tensor:
    return args[:, None, None, None]


def grey(images: Tensor) -> Tensor:
    """Luma (n, 1, h, w) by ITU-R 601 in Pillow's 16-bit weights; the sums stay below 2^24, exact in float32."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    luma: Tensor = (red * 19595 + green * 38470 + blue * 7471 + 32768) / 65536
    return luma.floor_()


def _blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """From `degenerate` (factor 0) through `images` (1) and beyond."""
    return (degenerate + _each(factors) * (images - degenerate)).clamp_(0, 255).floor_()


def auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255; in float64, as Pillow: its cut-off fractions show a last-bit error."""
    low, high = images.amin((2, 3), keepdim=True).double(), images.amax((2, 3), keepdim=True).double()
    # Not 255 / (...): torch makes that a product with the reciprocal, which rounds twice.
    scale = torch.full_like(low, 255.0) / (high - low)
    stretched = (images * scale + -low * scale).clamp_(0, 255).floor_().float()
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's levels mapped by its cumulative histogram."""
    n, c, h, w = images.shape
    levels = images.reshape(n, c, h * w).long()
    counts = torch.zeros(n, c, 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (h * w - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    equal = table.gather(2, levels).view(n, c, h, w).to(images.dtype)
    return torch.where(step[..., None] > 0, equal, images)


def invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """The highest `bits` of each level kept; 0 bits or fewer: black."""
    shift = _each(8 - bits.clamp(max=8)).int()
    return ((images.int() >> shift) << shift).to(images.dtype)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Levels from the threshold on inverted."""
    return torch.where(images < _each(thresholds), images, 255 - images)


def solarize_add(images: Tensor, additions: Tensor) -> Tensor:
    """Levels below 128 raised by the addition."""
    return torch.where(images < 128, (images + _each(additions)).clamp_(max=255), images)


def color(images: Tensor, factors: Tensor) -> Tensor:
    return _blend(grey(images), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    mean = grey(images).mean((1, 2, 3), keepdim=True, dtype=torch.float64)
    return _blend((mean + 0.5).floor_().float(), images, factors)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    return (images * _each(factors)).clamp_(0, 255).floor_()


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with Pillow's SMOOTH: 3 x 3 of ones with 5 in the centre, over 13; the outermost pixels stay."""
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * images[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (sums / 13 + 0.5).floor_()
    return _blend(smooth, images, factors)


def gaussian_blur(images: Tensor, radii: Tensor) -> Tensor:
    """Pillow's approximation: three box blurs a direction, each rounded to whole levels. Radii up to 2 pixels.

    Box of fractional width after Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box
    filtering", 2011, in Pillow's 24-bit fixed point (exact in float64).
    """
    variance = radii.double().square() / 3
    whole = ((torch.sqrt(12 * variance + 1) - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    inner = (2**24 / (2 * (whole + part) + 1)).floor()
    outer = ((2**24 - (2 * whole + 1) * inner) / 2).floor()
    nothing = torch.zeros_like(inner)
    one_more = torch.where(whole >= 1, inner, outer)
    two_more = torch.where(whole >= 1, outer, nothing)
    blurred = images.double()
    for _ in range(2):
        for _ in range(3):
            padded = pad(blurred, (2, 2, 0, 0), mode="replicate")
            total = _each(inner) * blurred
            total += _each(one_more) * (padded[..., 1:-3] + padded[..., 3:-1])
            total += _each(two_more) * (padded[..., :-4] + padded[..., 4:])
            blurred = ((total + 2**23) / 2**24).floor_()
        blurred = blurred.transpose(2, 3)
    return blurred.to(images.dtype)


PHOTOMETRIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Posterize": posterize,
    "PosterizeIncreasing": posterize,
    "PosterizeOriginal": posterize,
    "Solarize": solarize,
    "SolarizeIncreasing": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "ColorIncreasing": color,
    "Desaturate": color,
    "Contrast": contrast,
    "ContrastIncreasing": contrast,
    "Brightness": brightness,
    "BrightnessIncreasing": brightness,
    "Sharpness": sharpness,
    "SharpnessIncreasing": sharpness,
    "GaussianBlur": gaussian_blur,
    "GaussianBlurRand": gaussian_blur,
}
