"""The input of a graph (ONNX, OpenVINO), as shape and type say it: layout, type, fixed sizes; the batches it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from convmixer.data.preprocessing import Preprocessing
from convmixer.errors import UserError

# By the names that ONNX Runtime has for them, and OpenVINO.
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "f32": np.float32,
    "f16": np.float16,
    "f64": np.float64,
    "u8": np.uint8,
}
_MAX_SIDE = 4096
_MAX_BATCH = 2**30  # bytes


class GraphInput(Protocol):
    """An input as an engine shows it; what is no positive number in its shape is a side of any size."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def shape(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class InputForm:
    """A batch of images [batch, channels, side, side], or with `channels_last` [batch, side, side, channels].

    `batch`, `channels` and `side` are None where the file takes any. Of type float it takes normalised pixels, of type
    uint8 the pixels as they are, 0 to 255: what is to be done to them is then the file's business.
    """

    name: str
    dtype: type[np.generic]
    channels_last: bool
    batch: int | None
    channels: int | None
    side: int | None

    @property
    def takes_pixels(self) -> bool:
        return self.dtype is np.uint8

    def batch_of(self, images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
        """What the file takes of uint8 [N, size, size, channels]."""
        if self.takes_pixels:
            return images if self.channels_last else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        normalised = preprocessing.normalise(images)
        if self.channels_last:
            normalised = np.ascontiguousarray(normalised.transpose(0, 2, 3, 1))
        return normalised.astype(self.dtype, copy=False)


def form_of(path: str, inputs: Sequence[GraphInput]) -> InputForm:
    """The form of a graph's inputs. Raises UserError for those that are no batch of square images."""
    if len(inputs) != 1:
        raise UserError(f"{path}: has {len(inputs)} inputs; a model of one, a batch of images, is run")
    entry = inputs[0]
    # A size of zero or less, as some programs write for any, is none.
    shape = [side if isinstance(side, int) and side > 0 else None for side in entry.shape]
    if len(shape) != 4 or entry.type not in _TYPES:
        raise UserError(
            f"{path}: its input is {entry.type} {entry.shape}, not [batch, channels, height, width] or "
            "[batch, height, width, channels] of float or uint8"
        )
    channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    batch, channels, height, width = (shape[index] for index in ((0, 3, 1, 2) if channels_last else (0, 1, 2, 3)))
    if height != width:
        raise UserError(f"{path}: its input is {height} x {width} pixels; square images are run")
    if channels not in (None, 1, 3):
        raise UserError(f"{path}: its input {entry.shape} has {channels} channels; 1 or 3 are run")
    if (height or 1) > _MAX_SIDE:
        raise UserError(f"{path}: its input is {height} x {width} pixels; up to {_MAX_SIDE} are run")
    if (batch or 1) * (channels or 3) * (height or 224) ** 2 * 4 > _MAX_BATCH:
        raise UserError(f"{path}: its input {entry.shape} is a batch of more than {_MAX_BATCH >> 30} GiB")
    return InputForm(entry.name, _TYPES[entry.type], channels_last, batch, channels, height)
