"""Which images can be kept on the training device, and how crops are made of them there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from convmixer.data.cache import Prepare
from convmixer.data.limits import BadImage
from convmixer.data.reader import TrainReader, only_this_image
from convmixer.data.source import in_memory_images, is_in_memory
from convmixer.errors import UserError
from convmixer.machine import cores_of_this_process
from convmixer.training.loading.device_crops import DeviceCrops, why_not_cropped
from convmixer.training.loading.device_loader import MAX_BYTES, whole_images


def images_for_device(
    reader: TrainReader, decode: Prepare, device: torch.device, *, is_asked: bool, say: Callable[[str], None]
) -> tuple[np.ndarray, DeviceCrops | None] | None:
    """Pixels uint8 [n, H, W, C] to keep on `device`, and what makes crops of them, None where they are the crops.

    Unasked: sets held in memory alone, and crops only on GPUs; None for others. Asked: files too, as `decode` gives
    their pixels. Raises UserError where what was asked for cannot be.
    """
    pixels = whole_images(reader)
    if pixels is not None:
        return pixels, None
    if not is_asked and not (device.type == "cuda" and is_in_memory(reader.source)):
        return None
    pixels = in_memory_images(reader.source)
    try:
        if device.type not in ("cpu", "cuda"):
            raise BadImage(f"crops are made on CPUs and CUDA GPUs, not on {device.type}")
        if pixels is None:
            pixels = _decode_all(reader, decode, say)
        _check(reader, len(pixels), pixels.shape[1:])
        crops = DeviceCrops(reader, pixels.shape[1:], device)
        if not crops.is_exact():
            raise BadImage("this torch resizes otherwise than the one that this was made for")
    except BadImage as why:
        if is_asked:
            raise UserError(f"--cache device: {why}; try --cache ram") from None
        return None
    return pixels, crops


def _check(reader: TrainReader, count: int, shape: tuple[int, ...]) -> None:
    why = why_not_cropped(reader, shape)
    if why is not None:
        raise BadImage(why)
    size = count * int(np.prod(shape))
    if size > MAX_BYTES:
        raise BadImage(f"the images take {size / 1e9:.3g} GB, more than {MAX_BYTES / 1e9:.3g} GB")


def _decode_all(reader: TrainReader, decode: Prepare, say: Callable[[str], None]) -> np.ndarray:
    """All images of a source of files, which must have one size."""
    source = reader.source

    def decoded(index: int) -> np.ndarray:
        name = source.name(index)
        try:
            with only_this_image():
                pixels = decode(source.read(index))
        except BadImage as error:
            raise BadImage(f"{name}: {error}") from None
        if isinstance(pixels, bytes):
            raise BadImage(f"{name} is so large that it is decoded smaller where a crop allows it")
        return pixels

    if len(source) == 0:
        raise BadImage("there are no images")
    first = decoded(0)
    _check(reader, len(source), first.shape)
    images = np.empty((len(source), *first.shape), np.uint8)
    say(f"cache: decoding {len(source)} training images for the device")

    def put(index: int) -> None:
        pixels = decoded(index)
        if pixels.shape != first.shape:
            raise BadImage(f"{source.name(index)} has another size than {source.name(0)}")
        images[index] = pixels

    with ThreadPoolExecutor(cores_of_this_process()) as pool:
        chunk = 1024  # so that what is wrong with one is said before all have been read
        for start in range(0, len(source), chunk):
            list(pool.map(put, range(start, min(start + chunk, len(source)))))
    return images
