"""Every choice of tile sizes, warps and pipeline stages.

The defaults are those that compile for Hopper with tensor-core instructions and with no or minimal spilling of
registers; they were chosen from the compiler's report and have not been measured. The `..._CHOICES` are
what `benchmarks/gpu_kernels.py` times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class DepthwiseTiles:
    """Images that a program takes together, columns of its output tile and of its input tile, warps, stages.

    `prefetch` is how many rows are loaded into registers ahead of the one in work. `unroll`: the code holds a turn of
    all the k accumulators of the forward convolution, which then need no moves from row to row, but registers.
    """

    images: int = 64
    columns: int = 32
    window: int = 32
    warps: int = 4
    stages: int = 2
    precision: str = "ieee"
    prefetch: int = 0
    unroll: bool = True

    def launch_options(self) -> dict[str, int | str]:
        """What every kernel that takes these tiles is launched with, beside what its gradient's sums need too."""
        return {
            "BLOCK_IMAGES": self.images,
            "PRECISION": self.precision,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


@dataclass(frozen=True)
class PointwiseTiles:
    """Tile of the product [outputs, positions], depth of a step, warps, stages."""

    outputs: int = 128
    positions: int = 256
    inputs: int = 64
    warps: int = 8
    stages: int = 3
    precision: str = "ieee"

    def launch_options(self) -> dict[str, int | str]:
        """What the kernels of `device.pointwise` are launched with."""
        return {
            "BLOCK_OUTPUTS": self.outputs,
            "BLOCK_POSITIONS": self.positions,
            "BLOCK_INPUTS": self.inputs,
            "PRECISION": self.precision,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


DEPTHWISE_CHOICES = (
    *(DepthwiseTiles(stages=1, prefetch=rows) for rows in (0, 1, 2, 3)),
    DepthwiseTiles(stages=2),
    DepthwiseTiles(stages=1, prefetch=2, unroll=False),
    # Rolled up, Triton itself can copy the next two rows to shared memory.
    DepthwiseTiles(stages=3, unroll=False),
    DepthwiseTiles(images=128, warps=8, stages=1, prefetch=2),
)
BLOCK_GRAD_CHOICES = tuple(
    DepthwiseTiles(images=images, stages=1, prefetch=rows) for images in (64, 32) for rows in (0, 1, 2)
)
POINTWISE_CHOICES = (
    PointwiseTiles(),
    PointwiseTiles(stages=4),
    PointwiseTiles(positions=128, warps=4, stages=4),
    PointwiseTiles(positions=128, warps=8, stages=3),
)
POINTWISE_GRAD_CHOICES = (
    PointwiseTiles(outputs=64, positions=128, warps=4),
    PointwiseTiles(positions=64, warps=4),
    PointwiseTiles(positions=128, warps=8),
)

_MIN_SIDE = 16  # side of the smallest tile of a tensor core's product
_PROGRAMS = 1024  # enough to fill a GPU of 132 multiprocessors several times


def fit_depthwise(tiles: DepthwiseTiles, images: int, width: int, dtype: torch.dtype) -> DepthwiseTiles:
    """`tiles` cut down to so many images of this width. fp32 takes the fewest images: its products fill registers."""
    max_images = _MIN_SIDE if dtype == torch.float32 else tiles.images
    columns = _MIN_SIDE if width <= _MIN_SIDE else tiles.columns
    window = columns if width <= columns else 2 * columns
    fitted = min(max_images, max(_MIN_SIDE, _power_of_two(images)))
    return replace(tiles, images=fitted, columns=columns, window=window, warps=tiles.warps if fitted >= 64 else 4)


def depthwise_tiles(
    images: int, width: int, dtype: torch.dtype, kernel_size: int, *, fused: bool = False
) -> DepthwiseTiles:
    """For the forward convolution and the data gradient.

    Alone, Triton copies the next k rows to shared memory itself. Fused, with the activation between load and product,
    registers hold the rows ahead: 8 KB per program in 16-bit types, or for k = 9 as much as the accumulators leave.
    """
    if not fused:
        return fit_depthwise(DepthwiseTiles(), images, width, dtype)
    tiles = fit_depthwise(DepthwiseTiles(stages=1), images, width, dtype)
    return replace(tiles, prefetch=64 // tiles.window - (1 if kernel_size == 9 else 0))


def block_grad_tiles(images: int, width: int, dtype: torch.dtype, kernel_size: int) -> DepthwiseTiles:
    """For the depthwise half of a block backwards: as many images as leave registers for k rows and k products.

    A row is loaded ahead where that leaves registers too.
    """
    window = fit_depthwise(DepthwiseTiles(), images, width, dtype).window
    max_images = 64 if kernel_size * window <= 7 * 32 else 32 if kernel_size * window <= 9 * 32 else 16
    ahead = 1 if max_images < 64 or kernel_size * window <= 9 * 16 else 0
    return fit_depthwise(DepthwiseTiles(images=max_images, stages=1, prefetch=ahead), images, width, dtype)


def weight_grad_tiles(images: int, width: int, dtype: torch.dtype) -> DepthwiseTiles:
    """For the weight gradient. One stage: with two, Triton 3.6 makes ptxas spill 4 KB per thread at k = 9."""
    return fit_depthwise(DepthwiseTiles(images=32, stages=1), images, width, dtype)


def weight_grad_splits(channels: int, groups: int) -> int:
    """In how many parts the sum over `groups` of images is taken, so that there are programs enough."""
    return max(1, min(groups, -(-_PROGRAMS // channels)))


def pointwise_tiles(outputs: int, inputs: int, positions: int, dtype: torch.dtype) -> PointwiseTiles:
    """For a product of [outputs, inputs] and [inputs, positions]."""
    tiles = PointwiseTiles()
    if dtype == torch.float32:
        tiles = replace(tiles, positions=128, inputs=32, warps=8, stages=2)
    if min(outputs, inputs, positions) >= 128:
        return tiles
    return replace(
        tiles,
        outputs=min(tiles.outputs, max(_MIN_SIDE, _power_of_two(outputs))),
        positions=min(tiles.positions, max(_MIN_SIDE, _power_of_two(positions))),
        inputs=min(tiles.inputs, max(_MIN_SIDE, _power_of_two(inputs))),
        warps=4,
    )


def pointwise_grad_tiles(outputs: int, inputs: int, positions: int, dtype: torch.dtype) -> PointwiseTiles:
    """For the data gradient. Small tiles: another program's product must run while this one's epilogue loads."""
    tiles = pointwise_tiles(outputs, inputs, positions, dtype)
    return replace(tiles, outputs=min(64, tiles.outputs), positions=min(128, tiles.positions), warps=4)


def elements(positions: int) -> int:
    """Positions of a channel that a program of the elementwise kernels takes."""
    return min(2048, max(128, _power_of_two(positions)))


def pool_tile(images: int, positions: int) -> tuple[int, int]:
    """Images and positions of a channel that a program of the pooling takes at a time."""
    across = min(1024, max(16, _power_of_two(positions)))
    return min(_power_of_two(images), max(1, 2048 // across)), across


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
