"""Formulas over a network's shape, against torch's own counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convmixer.arch import Architecture, architecture
from convmixer.model import ConvMixer
from convmixer.network_costs import macs, parameters

SHAPES = [(Architecture(16, 2, 3, 2, "relu", 7, 1), 9), (Architecture(24, 3, 5, 4, "gelu", 10, 3), 32)]


@pytest.mark.parametrize(("arch", "size"), SHAPES)
def test_multiplications_are_half_of_torchs_flops(arch: Architecture, size: int) -> None:
    with FlopCounterMode(display=False) as counter:
        ConvMixer(arch).eval()(torch.zeros(1, arch.in_chans, size, size))
    assert macs(arch, size) == counter.get_total_flops() / 2


def test_multiplications_of_the_published_network() -> None:
    arch = architecture("convmixer_768_32")
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        ConvMixer(arch).eval()(torch.zeros(1, 3, 224, 224))
    assert macs(arch, 224) == counter.get_total_flops() / 2
    assert macs(arch, 224) == pytest.approx(20.68e9, rel=1e-3)
    assert parameters(arch) == 21_110_248  # as published
