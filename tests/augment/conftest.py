"""Images and a comparison of distributions for the tests of augmentation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from tests.project import FLOWERS


def _structured(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colour with grain over it: edges, flat areas and full contrast, as a photo has."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    levels = np.asarray(smooth).astype(int) + rng.integers(-12, 13, (height, width, 3))
    levels[: height // 4, : width // 4] = (10, 200, 90)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """RGB images: odd and even sizes, down to sizes without an inside, and photos where they are at hand."""
    made = [_structured(w, h, seed) for seed, (w, h) in enumerate([(61, 47), (64, 64), (33, 80), (2, 5), (1, 1)])]
    flat = Image.new("RGB", (20, 17), (7, 130, 255))
    return [*made, flat, *(Image.open(path).convert("RGB") for path in sorted(FLOWERS.glob("*/*"))[::300])]


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Photos of flowers, of one size."""
    if not FLOWERS.is_dir():
        pytest.skip("the flowers' photos are not here")
    return [Image.open(path).convert("RGB").resize((96, 80)) for path in sorted(FLOWERS.glob("*/*"))[::60]]


@pytest.fixture(scope="session")
def same_distribution() -> Callable[[object, object], bool]:
    """Two-sample Kolmogorov-Smirnov test, 1 in 100,000 by chance (and conservative where values repeat)."""

    def test(a: object, b: object) -> bool:
        x, y = np.sort(np.asarray(a, float)), np.sort(np.asarray(b, float))
        # Values that differ in the last bits only must not count as a step of the distribution.
        x, y = np.round(x, 5), np.round(y, 5)
        grid = np.concatenate([x, y])
        distance = np.abs(
            np.searchsorted(x, grid, side="right") / len(x) - np.searchsorted(y, grid, side="right") / len(y)
        ).max()
        return bool(distance < np.sqrt(-np.log(1e-5 / 2) / 2 * (1 / len(x) + 1 / len(y))))

    return test
