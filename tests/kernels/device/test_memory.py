"""What a training pass keeps for its backward pass, counted in maps: h1 and h2 of each block by the kernels.

Counted by torch's own hooks on saved tensors, which see those of custom operators too, each piece of memory once.
Sizes are such that parameters, their casts and vectors of a value a channel are far smaller than a map.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convmixer.kernels.block import fused_forward
from convmixer.model import ConvMixer, create_model

CHANNELS, IMAGES, SIDE, PATCH = 8, 2, 16, 2
MAP = CHANNELS * IMAGES * (SIDE // PATCH) ** 2  # values of one activation
INPUT = 3 * IMAGES * SIDE**2  # values of the images, which are those of the stem's columns too
HALF, SINGLE = 2, 4  # bytes


def network(activation: str, depth: int, device: torch.device) -> ConvMixer:
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


@pytest.mark.parametrize("images_dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_kernels_keep_h1_and_h2_of_each_block(
    activation: str, depth: int, images_dtype: torch.dtype, device: torch.device
) -> None:
    """Under fp16 autocast all of them in fp16, whichever type the images have.

    Once a network, beside them: the stem's columns and output (the first block's x); for its statistics in fp32 the
    activated map and, where that does not give the gradient as ReLU's does, the map before it. At the end ReLU keeps
    its result, from which the mean is taken; GELU keeps its input, which is the last h2.
    """
    model, images = network(activation, depth, device), torch.randn(IMAGES, 3, SIDE, SIDE, device=device)
    with torch.autocast(device.type, dtype=torch.float16):
        found = kept(lambda: fused_forward(model, images.to(images_dtype)))
    blocks = {1: [HALF * MAP] * 2, 3: [HALF * MAP] * 6}[depth]
    once = {
        "relu": [HALF * INPUT, HALF * MAP, SINGLE * MAP, HALF * MAP],
        "gelu": [HALF * INPUT, HALF * MAP, SINGLE * MAP, SINGLE * MAP],
    }[activation]
    assert found == sorted(blocks + once)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(("activation", "a_block", "stem"), [("relu", 4, 1), ("gelu", 6, 2)])
def test_eager_keeps_four_or_six_maps_a_block(
    activation: str, a_block: int, stem: int, depth: int, device: torch.device
) -> None:
    """Both convolutions' inputs, both BatchNorms' inputs, and where it is not ReLU both activations' inputs.

    The stem: its images in bf16, its BatchNorm's input and its activation's. The last map is kept by nothing.
    """
    model, images = network(activation, depth, device), torch.randn(IMAGES, 3, SIDE, SIDE, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = kept(lambda: model(images))
    assert found == sorted([HALF * INPUT] + [HALF * MAP] * (a_block * depth + stem))
