"""A weight file as something that answers: its runtime, and what it knows of its input and its classes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.model import ConvMixer
from convmixer.progress import note
from convmixer.runtime import Runtime
from convmixer.runtime.devices import memory_format
from convmixer.runtime.torch_runtime import TorchRuntime
from convmixer.weights.load import complete, load_into
from convmixer.weights.read import read_weights


@dataclass(frozen=True)
class ModelFile:
    """An opened model. `classes` is None where the file has no names; `num_classes` is always known."""

    runtime: Runtime
    preprocessing: Preprocessing
    classes: ClassMap | None
    num_classes: int


def open_weights(
    path: str,
    arch: str | None,
    preprocessing: Callable[[Preprocessing | None, int], Preprocessing],
    device: torch.device,
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    **options: object,
) -> ModelFile:
    """Open weights of any layout on a device.

    `preprocessing(record, channels)` decides on the preprocessing from the file's record or None; `options` as
    `weights.load.complete` takes them. Raises UserError for a file that cannot be used.
    """
    weights = read_weights(path)
    architecture, notes = complete(weights, arch, **options)
    chosen = preprocessing(weights.preprocessing, architecture.in_chans)
    model = ConvMixer(architecture)
    for line in notes + load_into(model, weights):
        note(line)
    model.to(device).to(memory_format=memory_format(architecture.kernel_size, device)).eval()
    return ModelFile(TorchRuntime(model, chosen, device, autocast), chosen, weights.classes, architecture.num_classes)
