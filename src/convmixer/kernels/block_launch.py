"""Launch of the kernel of a block's depthwise half backwards; see `device.block_grad`.

Imported only where Triton is. Maps are contiguous [C, N, H, W] here: a channel's maps lie together, its statistics are
sums over one piece of memory, and the pointwise convolution is one product of matrices.
"""

from __future__ import annotations

import torch

from convmixer.kernels import tiling
from convmixer.kernels.depthwise_launch import Normalise
from convmixer.kernels.device.activations import code
from convmixer.kernels.device.block_grad import depthwise_block_grad_kernel
from convmixer.kernels.device.depthwise import diagonal_sums_kernel
from convmixer.kernels.tiling import DepthwiseTiles


def depthwise_block_grad(
    grad: torch.Tensor,
    h: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    coefficients: torch.Tensor,
    of_x: Normalise,
    *,
    erf: str = "long",
    tiles: DepthwiseTiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x and, fp32 [C, 1, k, k], of the filter; and fp32 [3, C] those of the bias, of_x.shift, of_x.scale.

    From the gradient of the mixed map and coefficients, fp32 [3, C]; see `device.block_grad`.
    """
    channels, images, height, width = x.shape
    k = weight.shape[-1]
    tiles = tiles or tiling.block_grad_tiles(images, width, x.dtype, k)
    columns = -(-width // tiles.columns)
    grid = (channels, tiling.weight_grad_splits(channels * columns, -(-images // tiles.images)), columns)
    parts = grid[1] * grid[2]
    x_grad, weight_grad = torch.empty_like(x), x.new_empty((channels, 1, k, k), dtype=torch.float32)
    sums = x.new_empty((3, channels, parts), dtype=torch.float32)
    products = x.new_empty((channels, k, parts, tiles.window, tiles.columns), dtype=torch.float32)
    shape = {"K": k, "COLUMNS": tiles.columns, "WINDOW": tiles.window}
    with torch.cuda.device_of(x):
        depthwise_block_grad_kernel[grid](
            grad,
            h,
            x,
            weight.contiguous(),
            coefficients,
            of_x.scale,
            of_x.shift,
            of_x.bias,
            x_grad,
            sums,
            products,
            images,
            height,
            width,
            height * width,
            images * height * width,
            **shape,
            ACT=code(of_x.activation, x.dtype, erf),
            PREFETCH=tiles.prefetch,
            **tiles.launch_options(),
        )
        diagonal_sums_kernel[(channels, k)](products, weight_grad, parts, FLIP=True, **shape)
    return x_grad, weight_grad, sums.sum(dim=-1)
