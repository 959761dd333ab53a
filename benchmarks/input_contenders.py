"""What makes training batches of image files: this project, timm, torchvision, DALI; each cut into the same stages.

A contender is a chain of stages. `each` are done image by image, the first takes a path, or of packed images an index;
`batch` are done with the list of what the last of them gave.

All crop, resize to 224 px and flip; those that say so augment by two operations of
magnitude 9, erase and normalise as well, which on a GPU is the GPU's work.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convmixer.augment.host import HostAugmentation
from convmixer.augment.pipeline import Augmentation
from convmixer.config.augment import AugmentOptions
from convmixer.data.crops import CROP_DRAWS, crop_interpolation, cut, random_crop_box, reduction_of, train_crop
from convmixer.data.decode import decode_image, decode_pixels
from convmixer.data.image_file import read_image_file
from convmixer.data.preprocessing import Preprocessing
from convmixer.data.source import Source
from convmixer.randomness import Stream, uniforms
from convmixer.training.loading.torch_resize import torch_resize

SIZE = 224
POLICY = "rand-m9-mstd0.5-inc1"
CLASSES = 1000
STAGES = ("read", "decode", "crop + resize", "augment", "collate", "normalise + erase", "all")

Stage = tuple[str, Callable[[Any], Any]]


@dataclass
class Contender:
    """`items`: what it reads; `each`: stages of an image; `batch`: of the list of a batch; named by STAGES."""

    name: str
    items: Sequence[Any]
    each: Sequence[Stage]
    batch: Sequence[Stage] = field(default_factory=tuple)


def ours(
    name: str, items: Sequence[Any], read: Callable[[Any], bytes], *, augmented: bool, pillow: bool = False
) -> Contender:
    """This project: the crops of `TrainReader`, stage by stage, and where `augmented` all that a CPU run does then."""
    epochs = iter(range(1 << 30))
    draws: list[np.ndarray] = []

    def begin(item: Any) -> bytes:
        draws.append(uniforms(CROP_DRAWS, Stream.CROP, 0, next(epochs), 0))
        return read(item)

    def decode(encoded: bytes) -> Any:
        if pillow:
            return decode_image(encoded)
        return decode_pixels(encoded, lambda w, h: reduction_of(random_crop_box(w, h, draws[-1]), SIZE))

    def crop(decoded: Any) -> np.ndarray:
        if pillow:
            return train_crop(decoded, SIZE, draws.pop())
        pixels, (width, height) = decoded
        uniform = draws.pop()
        box = cut(pixels, random_crop_box(width, height, uniform), (width, height))
        return torch_resize(box, SIZE, crop_interpolation("random", uniform))

    each: list[Stage] = [("read", begin), ("decode", decode), ("crop + resize", crop)]
    if not augmented:
        return Contender(name, items, each, [("collate", lambda crops: torch.from_numpy(np.stack(crops)))])
    options, preprocessing = (
        AugmentOptions(auto_augment=POLICY, re_prob=0.25, re_mode="pixel"),
        Preprocessing(size=SIZE),
    )
    host = HostAugmentation(options, preprocessing, seed=0)
    rest = Augmentation(options, preprocessing, CLASSES, seed=0, per_image=False)

    def augment(crops: np.ndarray) -> np.ndarray:
        return host(crops, np.arange(len(crops)), next(epochs))

    def finish(crops: np.ndarray) -> object:
        labels, step = torch.zeros(len(crops), dtype=torch.int64), next(epochs)
        return rest(torch.from_numpy(crops), labels, np.arange(len(crops)), step, step)

    return Contender(name, items, each, [("collate", np.stack), ("augment", augment), ("normalise + erase", finish)])


def timms(name: str, items: Sequence[Any], read: Callable[[Any], bytes], *, augmented: bool) -> Contender:
    """timm's transforms of training, which its loader calls in its processes, and what it does in the main one."""
    from PIL import Image
    from timm.data import create_transform
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.data.random_erasing import RandomErasing

    policy = POLICY if augmented else None
    crop, policies, to_array = create_transform(
        SIZE,
        is_training=True,
        auto_augment=policy,
        color_jitter=None,
        interpolation="random",
        use_prefetcher=True,
        separate=True,
    )
    erasing = RandomErasing(0.25, mode="pixel", device="cpu")
    mean, std = (torch.tensor(v).mul(255).view(1, 3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))

    def decode(encoded: bytes) -> Image.Image:
        return Image.open(io.BytesIO(encoded)).convert("RGB")

    each: list[Stage] = [("read", read), ("decode", decode), ("crop + resize", crop)]
    each.append(("augment", lambda image: to_array(policies(image))))
    batch: list[Stage] = [("collate", torch.stack)]
    if augmented:
        batch.append(("normalise + erase", lambda images: erasing(images.float().sub_(mean).div_(std))))
    return Contender(name, items, each, batch)


def torchvisions(paths: Sequence[str]) -> Contender:
    """torchvision's v2 transforms on tensors: its own RandAugment, always two operations of level 9."""
    from torchvision import io as tv_io
    from torchvision.transforms import v2

    crop = v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True, interpolation=3), v2.RandomHorizontalFlip()])
    policy = v2.RandAugment(2, 9)
    normalise = v2.Normalize(Preprocessing().mean, Preprocessing().std)
    finish = v2.Compose([v2.ToDtype(torch.float32, scale=True), normalise, v2.RandomErasing(0.25)])
    return Contender(
        "torchvision v2",
        paths,
        [
            ("read", lambda path: torch.frombuffer(bytearray(_read(path)), dtype=torch.uint8)),
            ("decode", lambda encoded: tv_io.decode_jpeg(encoded, mode=tv_io.ImageReadMode.RGB)),
            ("crop + resize", crop),
            ("augment", policy),
            ("normalise + erase", finish),
        ],
        [("collate", torch.stack)],
    )


def dalis(paths: Sequence[str], batch: int) -> Contender:
    """NVIDIA DALI on the CPU, one thread: decodes the crop's region alone, cubic resize; as one stage."""
    from nvidia.dali import fn, pipeline_def, types

    def pipeline() -> Any:
        encoded, _ = fn.readers.file(files=list(paths))
        image = fn.decoders.image_random_crop(encoded, device="cpu", random_area=(0.08, 1.0), output_type=types.RGB)
        return fn.resize(image, size=(SIZE, SIZE), interp_type=types.INTERP_CUBIC, antialias=True)

    built = pipeline_def(pipeline, batch_size=batch, num_threads=1, device_id=None, prefetch_queue_depth=1)()
    built.build()
    return Contender("DALI, crop alone", paths, [("read", lambda path: path)], [("all", lambda _: built.run())])


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def contenders(paths: Sequence[str], batch: int, packed: Source | None) -> dict[str, Contender]:
    """Those that are installed, by name; timm's whole chain, which ratios are to, first. `packed`: the same images."""
    random.seed(0)
    torch.manual_seed(0)
    found = [
        timms("timm", paths, _read, augmented=True),
        ours("ours", paths, read_image_file, augmented=True),
        torchvisions(paths),
        timms("timm, crop alone", paths, _read, augmented=False),
        ours("ours, crop alone", paths, read_image_file, augmented=False),
        ours("ours, crop alone, --resampler pillow", paths, read_image_file, augmented=False, pillow=True),
    ]
    if packed is not None:
        items, read = range(len(packed)), lambda index: bytes(packed.read(index))
        found += [
            timms("timm, packed", items, read, augmented=True),
            ours("ours, packed", items, read, augmented=True),
            ours("ours, packed, crop alone", items, read, augmented=False),
        ]
    try:
        found.append(dalis(paths, batch))
    except ImportError as error:
        print(f"DALI is left out: {error}")
    return {contender.name: contender for contender in found}
