"""Networks whose logits depend on the image, and the records of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.networks import randomise_batch_norm

from convmixer.arch import architecture
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.metadata import ModelMetadata
from convmixer.model import ConvMixer


def lively_model(arch: str, **options: Any) -> ConvMixer:
    """Random weights that keep the signal's size, as torch's own do not, and random BatchNorm of every kind."""
    torch.manual_seed(0)
    model = ConvMixer(architecture(arch, **options)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5)
                assert module.bias is not None
                module.bias.uniform_(-0.5, 0.5)
    randomise_batch_norm(model)
    return model


def metadata_of(model: ConvMixer, **changes: Any) -> ModelMetadata:
    """The record of a network, changed: `size`, `crop_pct`, `interpolation` and the record's own."""
    channels = model.arch.in_chans
    fields: dict[str, Any] = {"size": 16, "mean": (0.45,) * channels, "std": (0.22,) * channels}
    fields |= {name: changes.pop(name) for name in ("size", "crop_pct", "interpolation") if name in changes}
    inputs = Preprocessing(**fields)
    names = ClassMap(tuple(f"class {number}" for number in range(model.arch.num_classes)))
    return ModelMetadata(
        model.arch, **{"classes": names, "preprocessing": inputs, "source_sha256": "0" * 64, **changes}
    )


@pytest.fixture(scope="session")
def small() -> ConvMixer:
    return lively_model("convmixer_16_2", kernel_size=3, patch_size=2, num_classes=5)
