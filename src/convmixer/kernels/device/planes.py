"""Device functions for planes: rows of a channel's maps, and the depthwise filter as Toeplitz matrices.

A program handles one channel. Its tiles hold one row of BLOCK_IMAGES images: [images, columns]. Convolving such a row
with one row of the filter is a product with a banded Toeplitz matrix, which tensor cores do; the k x k filter is k of
them. An output tile is COLUMNS wide. Its input tile is WINDOW wide: as wide where the whole row fits,
else twice as wide, half of COLUMNS beyond on both sides (the halo of k <= 9 is 4). All loads outside a map give 0.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from convmixer.kernels.device.activations import activate


@triton.jit
def tap_of(K: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr):
    """[WINDOW, COLUMNS]: the filter column through which input column i reaches output column j; any integer."""
    i = tl.arange(0, WINDOW)[:, None] - (WINDOW - COLUMNS) // 2
    return i - tl.arange(0, COLUMNS)[None, :] + K // 2


@triton.jit
def toeplitz_bands(
    weight_ptr, channel, dtype, K: tl.constexpr, FLIP: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr
):
    """The K matrices [WINDOW, COLUMNS] of a channel's filter, from the top row down; of the rotated filter if FLIP."""
    tap = tap_of(K, COLUMNS, WINDOW)
    mask = (tap >= 0) & (tap < K)
    bands = ()
    for row in tl.static_range(K):
        index = row * K + tap
        if FLIP:
            index = K * K - 1 - index
        band = tl.load(weight_ptr + channel * K * K + index, mask=mask, other=0.0)
        bands = bands + (band.to(dtype),)  # noqa: RUF005 - the compiler has no unpacking
    return bands


@triton.jit
def zero_tiles(COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, dtype):
    """COUNT tiles [ROWS, COLUMNS] of zeros."""
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros((ROWS, COLUMNS), dtype),)  # noqa: RUF005
    return tiles


@triton.jit
def tile_columns(COLUMNS: tl.constexpr, WINDOW: tl.constexpr):
    """The columns of this program's output tile and of its input tile, over grid (channels, groups, tiles)."""
    first = tl.program_id(2) * COLUMNS
    return first + tl.arange(0, COLUMNS), first - (WINDOW - COLUMNS) // 2 + tl.arange(0, WINDOW)


@triton.jit
def row_offsets(row, tile):
    """Offsets and mask, [images, columns], of row `row` of a tile, within one channel.

    A tile is (image numbers, column numbers, images, height, width, stride of an image), of a map of so many images.
    """
    image, column, images, height, width, image_stride = tile
    mask = (image[:, None] < images) & (column[None, :] >= 0) & (column[None, :] < width)
    offsets = image[:, None].to(tl.int64) * image_stride + (row * width + column[None, :])
    return offsets, mask & (row >= 0) & (row < height)


@triton.jit
def load_row(x_ptr, row, tile):
    """Row `row` of a tile; 0 outside the map."""
    offsets, mask = row_offsets(row, tile)
    return tl.load(x_ptr + offsets, mask=mask, other=0.0)


@triton.jit
def load_rows(x_ptr, tile, COUNT: tl.constexpr):
    """The first COUNT rows of a tile."""
    rows = ()
    for row in tl.static_range(COUNT):
        rows = rows + (load_row(x_ptr, row, tile),)  # noqa: RUF005
    return rows


@triton.jit
def biased(raw, bias):
    """raw + bias in fp32; bias None, for a map that has its bias already, costs nothing."""
    raw = raw.to(tl.float32)
    if bias is not None:
        raw += bias
    return raw


@triton.jit
def load_norm(scale_ptr, shift_ptr, bias_ptr, channel):
    """A channel's scale, shift and bias, None where bias_ptr is."""
    bias = None
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel)
    return tl.load(scale_ptr + channel), tl.load(shift_ptr + channel), bias


@triton.jit
def normalised(raw, mask, norm, ACT: tl.constexpr):
    """scale * act(raw + bias) + shift in fp32 where `mask` is true, else 0: BatchNorm comes before the padding."""
    scale, shift, bias = norm
    return tl.where(mask, scale * activate(biased(raw, bias), ACT) + shift, 0.0)


@triton.jit
def correlate_row(x, bands, rows, K: tl.constexpr, PRECISION: tl.constexpr):
    """Adds input row r to the K output rows r - K // 2 ... r + K // 2 that it reaches, which `rows` accumulates."""
    updated = ()
    for i in tl.static_range(K):
        updated = updated + (tl.dot(x, bands[K - 1 - i], rows[i], input_precision=PRECISION),)  # noqa: RUF005
    return updated


@triton.jit
def store_partial_sums(sums_ptr, values, COUNT: tl.constexpr):
    """The sums of this program's COUNT values into sums[i, channel, part], over grid (channels, groups, tiles)."""
    parts = tl.num_programs(1) * tl.num_programs(2)
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    for i in tl.static_range(COUNT):
        offset = (i * tl.num_programs(0) + tl.program_id(0)) * parts + part
        tl.store(sums_ptr + offset, tl.sum(values[i], axis=0))


@triton.jit
def store_products(products_ptr, products, K: tl.constexpr, COLUMNS: tl.constexpr, WINDOW: tl.constexpr):
    """This program's K products into products[channel, i, part], over grid (channels, splits, tiles)."""
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    parts = tl.num_programs(1) * tl.num_programs(2)
    tile = tl.arange(0, WINDOW)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    for i in tl.static_range(K):
        offset = ((tl.program_id(0) * K + i).to(tl.int64) * parts + part) * (WINDOW * COLUMNS)
        tl.store(products_ptr + offset + tile, products[i])
