"""A picture per image of what spoke for its answer."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from convmixer.backends.inside import Inside
from convmixer.class_activation import overlaid
from convmixer.errors import RUN_FAILED, UserError
from convmixer.prediction import Prediction

_UNFIT = re.compile(r"[^\w.-]+")
_MIN_SIDE = 224  # pixels that a picture has at least, so that a small network's map can be seen
_NAME = 60  # characters of an image's own name


class Explainer:
    """Writes the crop that the network saw beside the same with its class-activation map, as PNG files in a folder.

    They are numbered in the order of the images, and have the image's name and the class's behind the number.
    """

    def __init__(self, folder: str, inside: Inside) -> None:
        self.folder, self.inside, self.count = Path(folder), inside, 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--explain: {folder} cannot be made: {error.strerror}") from None

    @staticmethod
    def check(folder: str) -> None:
        """Raises UserError for what is there and is no folder that can be written to."""
        if os.path.lexists(folder) and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise UserError(f"--explain: {folder} is no folder that you may write to")

    def write(self, crops: np.ndarray, predictions: Sequence[Prediction]) -> None:
        """Pictures of crops uint8 [N, size, size, channels]. Raises UserError (exit 1) where the disk refuses."""
        if not len(crops):
            return
        labels = np.array([each.index for each in predictions])
        for crop, map_, prediction in zip(crops, self.inside.class_maps(crops, labels), predictions, strict=True):
            self.count += 1
            path = self.folder / f"{self.count:06d}_{_fit(prediction.path)}_{_fit(prediction.name)}.png"
            try:
                _enlarged(side_by_side(crop, map_)).save(path)
            except OSError as error:
                raise UserError(f"{path}: cannot be written: {error.strerror}", exit_code=RUN_FAILED) from None


def side_by_side(crop: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """The crop uint8 [H, W, C] and right of it the crop under its map [h, w]: uint8 [H, 2 W, 3]."""
    colour = np.repeat(crop, 3, axis=2) if crop.shape[2] == 1 else crop
    return np.concatenate([colour, overlaid(crop, map_)], axis=1)


def _enlarged(pixels: np.ndarray) -> Image.Image:
    image, factor = Image.fromarray(pixels), -(-_MIN_SIDE // pixels.shape[0])
    size = (image.width * factor, image.height * factor)
    return image if factor == 1 else image.resize(size, Image.Resampling.NEAREST)


def _fit(name: str) -> str:
    """A part of a file's name that any disk takes."""
    stem = os.path.splitext(os.path.basename(name.rstrip("/")))[0] or "image"
    return _UNFIT.sub("_", stem)[:_NAME].encode("ascii", "replace").decode().replace("?", "_")
