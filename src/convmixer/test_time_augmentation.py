"""Test-time augmentation: the answer to an image is the mean of the answers to several views of it; NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from convmixer.backends.runtime import Runtime
from convmixer.config.evaluation import TestTimeAugmentation
from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError
from convmixer.metrics.score import softmax


@dataclass(frozen=True)
class AveragingRuntime:
    """A runtime that is shown views of each image of `size` pixels: it and its mirror image, or those of five crops.

    The crops are the four corners and the centre of the image, which is then larger than they are.
    """

    runtime: Runtime
    size: int

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, side, side, channels], `side` >= `size` -> float32 [N, classes], logs of the mean probabilities."""
        answers = [softmax(self.runtime.logits(np.ascontiguousarray(view))) for view in self._views(images)]
        mean = np.maximum(np.mean(answers, axis=0), np.finfo(np.float32).tiny)  # the log of 0 would be no number
        return np.log(mean).astype(np.float32)

    def _views(self, images: np.ndarray) -> Iterator[np.ndarray]:
        room = images.shape[1] - self.size
        corners = [(0, 0), (0, room), (room, 0), (room, room)] if room else []
        centre = round(room / 2)  # as the evaluation crop has it
        for top, left in [*corners, (centre, centre)]:
            view = images[:, top : top + self.size, left : left + self.size]
            yield view
            yield view[:, :, ::-1]


def augmented(
    runtime: Runtime, preprocessing: Preprocessing, augmentation: TestTimeAugmentation
) -> tuple[Runtime, Preprocessing]:
    """What evaluates with views, and the crops that it wants. Raises UserError where there is nothing to crop."""
    if augmentation == "none":
        return runtime, preprocessing
    averaging = AveragingRuntime(runtime, preprocessing.size)
    if augmentation == "flip":
        return averaging, preprocessing
    side = preprocessing.resize_size
    if side == preprocessing.size:
        raise UserError(
            f"--tta: crops: with crop_pct {preprocessing.crop_pct:g} the image is resized to the network's "
            f"{side} pixels, which leaves nothing to crop; a lower --crop_pct does, or take flip"
        )
    return averaging, replace(preprocessing, size=side, crop_pct=1.0)
