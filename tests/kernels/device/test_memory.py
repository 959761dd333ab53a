"""What a training pass keeps for its backward pass, counted in maps: h1 and h2 of each block by the kernels.

Counted by torch's own hooks on saved tensors, which see those of custom operators too, each piece of memory once.
Sizes are such that parameters, their casts, vectors of one value per channel and what cuDNN reserves for itself are far
smaller than a map.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convmixer.arch import Activation
from convmixer.kernels.block import fused_forward
from convmixer.kernels.plan import Plan
from convmixer.model import ConvMixer, create_model

# A map is 4 MB on a GPU; 32 KB in the interpreter, which takes 64 images at a time.
CHANNELS, IMAGES = (64, 512) if torch.cuda.is_available() else (4, 64)
SIDE, PATCH = 16, 2
MAP = CHANNELS * IMAGES * (SIDE // PATCH) ** 2  # values of one activation
INPUT = 3 * IMAGES * SIDE**2  # values of the images
COLUMNS = 16 * IMAGES * (SIDE // PATCH) ** 2  # of the stem's columns: 12 values of a patch, and rows up to 16
HALF, SINGLE = 2, 4  # bytes


def network(activation: Activation, depth: int, device: torch.device) -> ConvMixer:
    name = f"convmixer_{CHANNELS}_{depth}"
    model = create_model(name, kernel_size=3, patch_size=PATCH, activation=activation, num_classes=4)
    return model.to(device).train()


def kept(network: Callable[[], torch.Tensor]) -> list[int]:
    """Bytes of each piece of memory that is kept and not small against a map, in order. The small ones are checked."""
    pieces: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        pieces[storage.data_ptr()] = storage  # held, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network()
    assert logits.requires_grad
    sizes = sorted(piece.nbytes() for piece in pieces.values())
    large = [size for size in sizes if size >= MAP]
    assert max(sizes[: -len(large)]) <= 0.2 * HALF * MAP
    return large


def kept_by_the_kernels(
    activation: Activation, depth: int, plan: str, images_dtype: torch.dtype, device: torch.device
) -> list[int]:
    """Under fp16 autocast."""
    model, images = network(activation, depth, device), torch.randn(IMAGES, 3, SIDE, SIDE, device=device)
    with torch.autocast(device.type, dtype=torch.float16):
        return kept(lambda: fused_forward(model, images.to(images_dtype), Plan.parse(plan)))


@pytest.mark.parametrize(
    ("activation", "depth", "plan", "a_block"),
    [
        ("relu", 1, "", 2),
        ("gelu", 3, "", 2),
        ("gelu", 2, "products=triton", 2),
        ("relu", 2, "keep=mixed", 3),
        ("gelu", 2, "keep=mixed products=triton", 3),
        ("relu", 3, "keep=inputs", 1),
        ("gelu", 1, "keep=inputs", 1),
    ],
)
def test_the_kernels_keep_what_their_plan_says_of_each_block(
    activation: Activation, depth: int, plan: str, a_block: int, device: torch.device
) -> None:
    """In fp16: h1 and h2 of each block; the mixed map too; or h2 alone, which is the next block's x and is kept once.

    Once a network, beside them: the stem's columns and its product, the first block's x.
    """
    found = kept_by_the_kernels(activation, depth, plan, torch.float16, device)
    assert found == sorted([HALF * MAP] * (a_block * depth + 1) + [HALF * COLUMNS])


def test_images_in_fp32_are_not_kept(device: torch.device) -> None:
    found = kept_by_the_kernels("relu", 1, "", torch.float32, device)
    assert found == sorted([HALF * MAP] * 3 + [HALF * COLUMNS])


@pytest.mark.parametrize(("activation", "singles"), [("relu", 1), ("gelu", 2)])
def test_torchs_ends_keep_more(activation: Activation, singles: int, device: torch.device) -> None:
    """For the stem's statistics, in fp32, the activated map and, where that does not give the gradient, its input.

    At the end the last map with its bias, or what ReLU makes of it.
    """
    found = kept_by_the_kernels(activation, 1, "ends=torch", torch.float32, device)
    assert found == sorted([HALF * MAP] * 4 + [HALF * COLUMNS] + [SINGLE * MAP] * singles)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(("activation", "a_block", "stem"), [("relu", 4, 1), ("gelu", 6, 2)])
def test_eager_keeps_four_or_six_maps_a_block(
    activation: Activation, a_block: int, stem: int, depth: int, device: torch.device
) -> None:
    """Both convolutions' inputs, both BatchNorms' inputs, and where it is not ReLU both activations' inputs.

    The stem: its images in bf16, its BatchNorm's input and its activation's. The last map is kept by nothing.
    """
    model, images = network(activation, depth, device), torch.randn(IMAGES, 3, SIDE, SIDE, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = kept(lambda: model(images))
    assert found == sorted([HALF * INPUT] + [HALF * MAP] * (a_block * depth + stem))
