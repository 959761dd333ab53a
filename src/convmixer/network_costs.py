"""What a network costs by formulas over its shape: parameters, multiplications, the batch that a GPU's memory holds.

Nothing of it is measured. The counts of `max_batch` are those of benchmarks/NOTES.md, "Memory", which
tests/kernels/device/test_memory.py and tests/test_recompute.py take from torch: of 16-bit maps (--amp_level O1), run
eager.
"""

from __future__ import annotations

from convmixer.arch import Architecture

_MAP = 2  # bytes of a value of a map
_CONTEXT = 1 << 30  # bytes of CUDA's context and of workspaces
# Of a parameter: weight, gradient, AdamW's two moments and the average of the weights in fp32, and a cast in 16 bits.
_PARAMETER = 5 * 4 + 2
_STEP = 3  # maps that the widest step backwards holds beside those that were kept
_IMAGE = 4 + 2  # bytes of a value of an image: in fp32, and cast


def max_batch(memory: int, arch: Architecture, size: int, *, recompute: bool) -> int:
    """Images of `size` pixels in a batch that `memory` bytes hold; 0 where not even the parameters fit."""
    relu = arch.activation == "relu"
    # Inputs of both convolutions and BatchNorms, and where ReLU's result does not do instead, of both activations.
    block, stem = (4, 1) if relu else (6, 2)
    # Recomputed, a block keeps its input, and all of one block is there while its backward pass runs.
    kept = (arch.depth + block if recompute else block * arch.depth) + stem
    a_map = _MAP * arch.dim * (size // arch.patch_size) ** 2
    image = (kept + _STEP) * a_map + _IMAGE * arch.in_chans * size**2
    return max(0, memory - _CONTEXT - _PARAMETER * parameters(arch)) // image


def parameters(arch: Architecture) -> int:
    """Number of the network's parameters."""
    norm, bias = 2 * arch.dim, arch.dim
    stem = arch.dim * arch.in_chans * arch.patch_size**2 + bias + norm
    block = arch.dim * (arch.kernel_size**2 + arch.dim) + 2 * (bias + norm)
    return stem + arch.depth * block + (arch.dim + 1) * arch.num_classes


def macs(arch: Architecture, size: int) -> int:
    """Multiplications with additions of convolutions and head for one image of `size` pixels, forward.

    768/32 (kernel 7, patch 7) at 224 px: 20.7e9, as torch's own counter has it; published tables say 19.6.
    Training takes about three times as many.
    """
    positions = (size // arch.patch_size) ** 2
    stem = arch.dim * arch.in_chans * arch.patch_size**2
    block = arch.dim * (arch.kernel_size**2 + arch.dim)
    return positions * (stem + arch.depth * block) + arch.dim * arch.num_classes
