"""The torch runtime: a ConvMixer on a device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from convmixer.arch import ArchitectureHints, check_image_size
from convmixer.backends.autotune.choose import choose_network
from convmixer.backends.model_file import Chooser, DeviceRequest, ModelFile
from convmixer.backends.torch_inside import TorchInside
from convmixer.backends.workload import Workload
from convmixer.data.preprocessing import Preprocessing
from convmixer.devices import choose_device, memory_format
from convmixer.model import ConvMixer
from convmixer.normalisation import normalise
from convmixer.weights.load import build, complete
from convmixer.weights.read import read_weights

if TYPE_CHECKING:  # a backend needs no options, nor what checks them
    from convmixer.config.execution import Execution

logger = logging.getLogger(__name__)


class TorchRuntime:
    """Runs `model` (on `device`, in eval mode while it runs) under the autocast context that `autocast()` makes."""

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.preprocessing = preprocessing
        self.device = device
        self.autocast = autocast

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, size, size, channels] -> float32 [N, classes]."""
        was_training = self.model.training
        self.model.eval()
        try:
            batch = torch.from_numpy(images).to(self.device, non_blocking=True)
            with self.autocast():
                out = self.model(normalise(batch, self.preprocessing))
        finally:
            self.model.train(was_training)
        return out.float().cpu().numpy()

    def tune(self, images: int, batch_size: int, image_size: int, execution: Execution) -> None:
        """Take the backend that `execution` asks for; `auto` times them where the workload outlasts it. Logs which.

        The model's weights must not change from then on.
        """
        assert isinstance(self.model, ConvMixer)
        with self.autocast():
            device_type = self.device.type
            dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else torch.float32
        workload = Workload(self.model.arch, image_size, batch_size, dtype, False, self.device)
        self.model = choose_network(self.model, workload, images, execution)


def open_weights(
    path: str,
    hints: ArchitectureHints,
    choose: Chooser,
    request: DeviceRequest,
    autocast: Callable[[torch.device], Callable[[], AbstractContextManager[object]]] | None = None,
    entry: str | None = None,
) -> ModelFile:
    """Open weights of any layout on a device; see `opening.open_model`."""
    device, remark = choose_device(request.target, request.index, is_required=request.is_required)
    if remark is not None:
        logger.info(remark)
    weights = read_weights(path, entry)
    architecture, notes = complete(weights, hints)
    chosen = choose(weights.preprocessing, architecture.in_chans)
    check_image_size(architecture, chosen.size)
    model = build(weights, architecture, ConvMixer)
    for line in notes:
        logger.info(line)
    model.to(device).to(memory_format=memory_format(architecture.kernel_size, device))
    context = nullcontext if autocast is None else autocast(device)
    runtime = TorchRuntime(model, chosen, device, context)

    def inside() -> TorchInside:
        return TorchInside(model, chosen, lambda headless: TorchRuntime(headless, chosen, device, context))

    return ModelFile(
        runtime,
        chosen,
        weights.classes,
        architecture.num_classes,
        architecture,
        weights.path,
        weights.metadata,
        inside,
    )
