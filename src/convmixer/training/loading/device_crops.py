"""Random crops of images that lie on the training device, equal to the bit to those of `TrainReader`."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from convmixer.data.crops import CROP_DRAWS, crop_interpolation, random_crop_box
from convmixer.data.reader import TrainReader
from convmixer.devices import to_device
from convmixer.randomness import Stream, uniforms
from convmixer.training.loading.torch_resize import torch_resize

_MODES = {"bilinear": 1, "bicubic": 2}  # radius of the filter in pixels
# Of images. The products are dense: past it they cost more than they save, and their tables grow with the cube.
MAX_SIDE = 96
_AT_ONCE = 2**23  # numbers of float64 in the largest product: 64 MiB


def why_not_cropped(reader: TrainReader, shape: tuple[int, ...]) -> str | None:
    """Why `DeviceCrops` cannot make the reader's crops of images of `shape`, (H, W, C); None where it can."""
    if reader.resize is not torch_resize:
        return "crops are resized by Pillow (--resampler)"
    if reader.interpolation not in (*_MODES, "random"):
        return f"crops are resized by {reader.interpolation} (--interpolation)"
    if shape[2] != reader.preprocessing.channels:
        return f"the images have {shape[2]} channels, the network takes {reader.preprocessing.channels}"
    if max(shape[:2]) > MAX_SIDE:
        return f"the images have {shape[1]} x {shape[0]} pixels, more than {MAX_SIDE} a side"
    return None


class DeviceCrops:
    """The reader's crops of images uint8 [n, H, W, C] on `device`, for readers of which `why_not_cropped` has no doubt.

    What torch's resize of bytes does is repeated as two products with matrices of weights, rounded after each. Every
    number is an integer over a power of two, and float64 holds the sums exactly: no order of summation and no kind of
    device changes them.
    """

    def __init__(self, reader: TrainReader, shape: tuple[int, ...], device: torch.device) -> None:
        self.reader, self.shape, self.size, self.side = reader, shape, shape[:2], reader.preprocessing.size
        longest = max(self.size)
        tables = np.zeros((len(_MODES), longest + 1, self.side, longest))
        for table, radius in zip(tables, _MODES.values(), strict=True):
            for length in range(1, longest + 1):
                table[length, :, :length] = resize_weights(length, self.side, radius)
        self._weights = torch.from_numpy(tables).to(device)

    def __call__(self, images: Tensor, indices: np.ndarray, epoch: int) -> Tensor:
        """Crops uint8 [b, size, size, C] of those `indices`, int64 [b], of the images, as `epoch` has them."""
        reader, (height, width) = self.reader, self.size
        draws = uniforms(CROP_DRAWS, Stream.CROP, reader.seed, epoch, indices)
        box = partial(random_crop_box, width, height, scale=(reader.min_crop, 1.0), ratio=reader.ratio)
        names = list(_MODES)
        wanted = [(*box(row), names.index(crop_interpolation(reader.interpolation, row))) for row in draws]
        return self.cut(images, indices % len(images), np.array(wanted, dtype=np.int64).reshape(-1, 5))

    def cut(self, images: Tensor, indices: np.ndarray, boxes: np.ndarray) -> Tensor:
        """Those boxes, int64 [b, 5]: left, top, width, height, and 0 for bilinear, 1 for bicubic."""
        table = to_device(np.column_stack((indices, boxes)), images.device)
        per_image = self.side * max(self.side, *self.size) * images.shape[3]
        return torch.cat([self._cut(images, part) for part in table.split(max(1, _AT_ONCE // per_image))])

    def _cut(self, images: Tensor, table: Tensor) -> Tensor:
        at, left, top, width, height, mode = table.unbind(1)
        # What lies past a box has no weight.
        rows = (top[:, None] + torch.arange(self.size[0], device=images.device)).clamp_(max=self.size[0] - 1)
        columns = (left[:, None] + torch.arange(self.size[1], device=images.device)).clamp_(max=self.size[1] - 1)
        # [b, W, H, C]: each product is over the first axis after the batch's.
        crops = images[at[:, None, None], rows[:, None, :], columns[:, :, None]].double()
        count, channels = len(table), images.shape[3]
        across = self._weights[mode, width, :, : self.size[1]] @ crops.flatten(2)
        across = _to_bytes(across).view(count, self.side, self.size[0], channels).transpose(1, 2)
        down = self._weights[mode, height, :, : self.size[0]] @ across.reshape(count, self.size[0], -1)
        return _to_bytes(down).view(count, self.side, self.side, channels).byte()

    def is_exact(self) -> bool:
        """Whether noise in boxes of all lengths comes out as torch's own resize on this machine has it."""
        image = np.random.default_rng(0).integers(0, 256, self.shape, dtype=np.uint8)
        height, width = self.size
        boxes = np.array(
            [
                (0, 0, min(length, width), min(length, height), mode)
                for mode in range(len(_MODES))
                for length in range(1, max(self.size) + 1)
            ]
        )
        images = torch.from_numpy(image[None]).to(self._weights.device)
        found = self.cut(images, np.zeros(len(boxes), np.int64), boxes).cpu().numpy()
        return all(
            np.array_equal(crop, torch_resize(np.ascontiguousarray(image[:h, :w]), self.side, list(_MODES)[mode]))
            for crop, (_, _, w, h, mode) in zip(found, boxes.tolist(), strict=True)
        )


def _to_bytes(sums: Tensor) -> Tensor:
    return sums.add_(0.5).floor_().clamp_(0, 255)


def resize_weights(length: int, side: int, radius: int) -> np.ndarray:
    """Weights float64 [side, length] by which torch's antialiased resize of bytes makes `side` pixels of `length`.

    `radius`: of the filter, 1: bilinear, 2: bicubic (a = -0.5). Integers over the power of two with which the largest
    of them just fits into 16 bits (aten/src/ATen/native/cpu/UpSampleKernel.cpp, compute_index_ranges_int16_weights).
    """
    scale = length / side
    stretch = max(scale, 1.0)
    centers = scale * (np.arange(side) + 0.5)
    first = np.maximum((centers - radius * stretch + 0.5).astype(np.int64), 0)[:, None]
    last = np.minimum((centers + radius * stretch + 0.5).astype(np.int64), length)[:, None]
    at = np.arange(length)[None]
    weights = _filter(np.abs((at - first + (first - centers[:, None]) + 0.5) * (1 / stretch)), radius)
    weights = np.where((at >= first) & (at < last), weights, 0.0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other, as torch adds them
    largest, bits = weights.max(), 0
    while bits < 22 and int(0.5 + largest * 2 ** (bits + 1)) < 1 << 15:
        bits += 1
    return np.trunc(weights * 2.0**bits + np.copysign(0.5, weights)) * 2.0**-bits


def _filter(x: np.ndarray, radius: int) -> np.ndarray:
    if radius == 1:
        return np.maximum(1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
