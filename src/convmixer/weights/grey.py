"""Weights for colour images, for grey ones."""

from __future__ import annotations

from dataclasses import replace

from convmixer.weights.read import WeightFile

_STEM = "stem.conv.weight"


def for_grey(weights: WeightFile) -> tuple[WeightFile, str]:
    """Weights of 3 input channels as weights of 1, and a line that says so.

    The filters of the channels are summed, as in timm: a grey image gives what it gave as three equal channels, where
    all are normalised alike. `mean` and `std` are the means of those of the three channels.
    """
    line = f"{weights.path}: takes colour; for grey images the filters of the 3 channels are summed"
    inputs = weights.preprocessing
    if inputs is not None:
        mean, std = sum(inputs.mean) / len(inputs.mean), sum(inputs.std) / len(inputs.std)
        inputs = replace(inputs, mean=(mean,), std=(std,))
        line += f", mean {mean:g} and std {std:g} are the means of theirs"
    filters = weights.state[_STEM]
    state = {**weights.state, _STEM: filters.float().sum(dim=1, keepdim=True).to(filters.dtype)}
    return replace(weights, state=state, shape=replace(weights.shape, in_chans=1), preprocessing=inputs), line
