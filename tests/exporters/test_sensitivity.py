"""A layer that int8 must harm is found, and leaving it out mends the answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exporters.conftest import lively_model, metadata_of
from tests.exporters.test_formats import expected_of, opened, random_images, write

from convmixer.exporters.format import WriteSettings
from convmixer.exporters.sensitivity import layer_sensitivity, tell
from convmixer.model import Block, ConvMixer


def harmed_model() -> ConvMixer:
    """In its second block one channel is ten thousand times the others and counts for nothing.

    In eight bits the others are then all zero.
    """
    model = lively_model("convmixer_16_3", kernel_size=3, patch_size=2, num_classes=5)
    block = model.blocks[1]
    assert isinstance(block, Block)
    with torch.no_grad():
        block.depthwise_norm.weight[3] *= 1e4
        block.pointwise.weight[:, 3] = 0
    return model


@pytest.mark.slow
def test_the_layer_is_found(tmp_path: Path) -> None:
    model = harmed_model()
    metadata = metadata_of(model, precision="int8")

    def calibration() -> Iterator[np.ndarray]:
        yield random_images(16)

    found = layer_sensitivity(model, metadata, WriteSettings(calibration), [random_images(8)])
    assert set(found) == {"head", *(f"blocks.{number}.pointwise" for number in range(3))}
    worst, next_worst = list(found.values())[:2]
    assert next(iter(found)) == "blocks.1.pointwise"
    assert worst > 0.1 > next_worst

    images = random_images(8)
    expected = expected_of(model, images)
    differences = [
        np.abs(opened(write("ONNX", model, metadata, tmp_path, *skip)).runtime.logits(images) - expected).max()
        for skip in ((), ("blocks.1.pointwise",))
    ]
    assert differences[1] < differences[0] / 3


def test_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("convmixer.exporters.sensitivity"), "warning", lines.append)
    tell({f"blocks.{number}.pointwise": 1 / (number + 2) for number in range(16)}, ["head"])
    assert lines[1] == "  0.5  blocks.0.pointwise"
    assert lines[-2:] == [
        "  and 6 with less",
        "--int8_skip head blocks.0.pointwise blocks.1.pointwise leaves the worst in single precision",
    ]
