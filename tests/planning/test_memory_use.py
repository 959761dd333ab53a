"""The count of live tensors, against sizes by hand."""

from __future__ import annotations

import torch

from convmixer.training.memory_use import LiveTensors, peak_of

CPU = torch.device("cpu")
MAP = 1000 * 4  # bytes of 1,000 numbers in fp32


def test_what_is_gone_does_not_count_and_the_peak_stays() -> None:
    def action() -> None:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b + 1
        del b, c
        torch.zeros(500)

    assert peak_of(action, CPU) == 2 * MAP


def test_views_and_updates_in_place_take_nothing() -> None:
    with LiveTensors() as live:
        a = torch.zeros(1000)
        a.view(10, 100).add_(1)
    assert (live.peak, live.now) == (MAP, MAP)
    del a
    assert live.now == 0


def test_what_is_kept_for_the_backward_pass_counts() -> None:
    weight = torch.ones(1000, requires_grad=True)

    def action() -> None:
        x = (weight * 2).exp()  # exp keeps its result
        (x.sin() * x).sum().backward()

    assert peak_of(action, CPU) >= 4 * MAP
