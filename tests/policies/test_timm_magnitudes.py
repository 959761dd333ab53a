from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from timm.data import auto_augment as timm_ops

from convmixer.policies.timm_magnitudes import LEVELLED, arguments

LEVELS = np.concatenate([np.linspace(0, 10, 101), [12.5, 17.0, 30.0]])


@pytest.mark.parametrize("op", [op for op in LEVELLED if timm_ops.LEVEL_TO_ARG[op] and op != "GaussianBlurRand"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_equals_timm(op: str, sign: float) -> None:
    # timm turns the sign where random.random() > 0.5.
    with mock.patch("random.random", return_value=0.9 if sign < 0 else 0.1):
        theirs = [timm_ops.LEVEL_TO_ARG[op](level, {})[0] for level in LEVELS]
    if op == "Desaturate":
        theirs = [1 - factor for factor in theirs]
    ours = arguments(op, LEVELS, np.full_like(LEVELS, sign), np.zeros_like(LEVELS))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_random_blur_is_uniform_from_a_tenth_to_the_level() -> None:
    u = np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(arguments("GaussianBlurRand", np.full(3, 10.0), np.ones(3), u), [0.1, 1.05, 2.0])
    np.testing.assert_allclose(arguments("GaussianBlurRand", np.full(3, 5.0), np.ones(3), u), [0.1, 0.55, 1.0])
