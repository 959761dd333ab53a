"""`convmixer.load_model`: a network that knows its classes and its input."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from convmixer.api.images import Images, open_images
from convmixer.api.options import PathLike
from convmixer.arch import Activation, Architecture, ArchitectureHints, check_image_size
from convmixer.backends.torch_inside import TorchInside
from convmixer.backends.torch_runtime import TorchRuntime
from convmixer.data.classes import ClassMap
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.reader import read_batches
from convmixer.errors import RUN_FAILED, UserError
from convmixer.inputs import default_preprocessing
from convmixer.model import ConvMixer
from convmixer.prediction import Prediction, predict
from convmixer.weights.load import build, complete
from convmixer.weights.read import read_weights

if TYPE_CHECKING:
    from convmixer.weights.read import WeightFile

logger = logging.getLogger(__name__)


class Classifier(ConvMixer):
    """A ConvMixer in eval mode with what its weight file says: called on normalised images it gives logits.

    `classes`: their names, None where the file has none. `preprocessing`: what makes the network's input of an image.
    """

    def __init__(self, arch: Architecture, class_map: ClassMap | None, preprocessing: Preprocessing) -> None:
        super().__init__(arch)
        self.class_map, self.preprocessing = class_map, preprocessing

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None if self.class_map is None else self.class_map.names

    def predict(
        self, images: Images, *, topk: int = 5, batch_size: int = 32, workers: int = 4, recursive: bool = False
    ) -> list[Prediction]:
        """Classify images, as `convmixer.predict` does, on the device that the model lies on."""
        device = next(self.parameters()).device
        runtime = TorchRuntime(self, self.preprocessing, device)
        source = open_images(images, recursive=recursive)
        return list(
            predict(
                runtime, source, self.preprocessing, self.class_map, batch_size=batch_size, threads=workers, topk=topk
            )
        )

    def embed(self, images: Images, *, batch_size: int = 32, workers: int = 4, recursive: bool = False) -> np.ndarray:
        """Feature vectors before the head, float32 [images, dim], in the order of the images.

        Raises UserError for an image that cannot be read.
        """
        device = next(self.parameters()).device
        inside = TorchInside(self, self.preprocessing, lambda model: TorchRuntime(model, self.preprocessing, device))
        source = open_images(images, recursive=recursive)
        found = []
        for batch in read_batches(source, self.preprocessing, batch_size, threads=workers):
            for index, reason in batch.bad:
                raise UserError(f"{source.name(index)}: {reason}", exit_code=RUN_FAILED)
            found.append(inside.features(batch.images)[0])
        return np.concatenate(found)


def load_model(
    path: PathLike,
    arch: str | None = None,
    *,
    entry: str | None = None,
    kernel_size: int | None = None,
    patch_size: int | None = None,
    activation: Activation | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    device: str | torch.device = "cpu",
) -> Classifier:
    """The network in a weight file of any layout, or a checkpoint folder, in eval mode.

    What the file does not say is given by `arch` and the other values (None: not given), of several networks in it by
    `entry`. Raises UserError where they contradict the file, or where something is missing.
    """
    weights: WeightFile = read_weights(path, entry)
    hints = ArchitectureHints(arch, kernel_size, patch_size, activation, num_classes, in_chans)
    architecture, notes = complete(weights, hints)
    preprocessing = weights.preprocessing or default_preprocessing(architecture.in_chans)
    check_image_size(architecture, preprocessing.size)
    model = build(weights, architecture, lambda arch: Classifier(arch, weights.classes, preprocessing))
    for line in notes:
        logger.info(line)
    return model.to(device)
