"""Every kernel compiles to machine code for a Hopper GPU (sm_90), with no GPU at hand.

This finds what the interpreter lets pass: wrong types, values that are no constants, products that miss the tensor
cores. Nothing here says how fast a kernel is.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from convmixer.kernels import tiling

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter's kernels are not compiled"
)

# Only where Triton is.
from convmixer.kernels.device.activations import SHORT_GELU

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Pointers to maps, which have the type under test; all other tensors are fp32.
MAPS = {"x_ptr", "grad_ptr", "h_ptr", "out_ptr", "x_grad_ptr", "mixed_ptr"}
# As at 224 px: Triton specialises integers that 16 divides.
DIVISIBLE = ("stride", "height", "width", "positions", "inputs", "outputs")


def compiled(kernel: Any, dtype: str, warps: int, stages: int, **constants: object) -> Any:
    """The kernel for sm_90; `constants` are its constexpr arguments."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    maps = MAPS | {"weight_ptr"} if kernel.__name__.startswith("pointwise") else MAPS

    def type_of(name: str) -> str:
        if name in constants:
            return "constexpr"
        return f"*{dtype if name in maps else 'fp32'}" if name.endswith("_ptr") else "i32"

    names = kernel.arg_names
    signature = {name: type_of(name) for name in names}
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, kind in signature.items()
        if kind.startswith("*") or (kind == "i32" and name.endswith(DIVISIBLE))
    }
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    return triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": warps, "num_stages": stages})


def depthwise(
    dtype: str, k: int, *, prologue: bool, epilogue: str, act: int, images: int = 256, width: int = 32, **forms: Any
) -> Any:
    """`forms`: fields of the tiles that are not to be the default's."""
    from convmixer.kernels.device.depthwise import depthwise_kernel

    tiles = replace(tiling.depthwise_tiles(images, width, TYPES[dtype], k, fused=prologue), **forms)
    constants = {
        **planes(tiles),
        "UNROLL": tiles.unroll,
        "PREFETCH": tiles.prefetch,
        "K": k,
        "PROLOGUE": prologue,
        "EPILOGUE": epilogue,
        "ACT": act,
    }
    return compiled(depthwise_kernel, dtype, tiles.warps, tiles.stages, FLIP=not prologue, HAS_BIAS=True, **constants)


def weight_grad(dtype: str, k: int, *, images: int = 256, width: int = 32) -> Any:
    from convmixer.kernels.device.depthwise import depthwise_weight_grad_kernel

    tiles = tiling.weight_grad_tiles(images, width, TYPES[dtype])
    return compiled(depthwise_weight_grad_kernel, dtype, tiles.warps, tiles.stages, **planes(tiles), K=k)


def block_grad(dtype: str, k: int, *, act: int, images: int = 256, width: int = 32, **forms: Any) -> Any:
    from convmixer.kernels.device.block_grad import depthwise_block_grad_kernel

    tiles = replace(tiling.block_grad_tiles(images, width, TYPES[dtype], k), **forms)
    constants = {**planes(tiles), "PREFETCH": tiles.prefetch, "K": k, "ACT": act}
    return compiled(depthwise_block_grad_kernel, dtype, tiles.warps, tiles.stages, **constants)


def pointwise(dtype: str, *, statistics: bool, act: int) -> Any:
    from convmixer.kernels.device.pointwise import pointwise_kernel

    tiles = tiling.pointwise_tiles(768, 768, 1 << 18, TYPES[dtype])
    constants = {**products(tiles), "STATISTICS": statistics, "ACT": act}
    return compiled(pointwise_kernel, dtype, tiles.warps, tiles.stages, **constants)


def pointwise_grad(dtype: str, *, act: int, mix: bool = True, tiles: tiling.PointwiseTiles | None = None) -> Any:
    from convmixer.kernels.device.pointwise import pointwise_grad_kernel

    tiles = tiles or tiling.pointwise_grad_tiles(768, 768, 1 << 18, TYPES[dtype])
    constants = {**products(tiles), "ACT": act, "MIX": mix}
    return compiled(pointwise_grad_kernel, dtype, tiles.warps, tiles.stages, **constants)


def products(tiles: tiling.PointwiseTiles) -> dict[str, object]:
    return {
        "BLOCK_OUTPUTS": tiles.outputs,
        "BLOCK_POSITIONS": tiles.positions,
        "BLOCK_INPUTS": tiles.inputs,
        "PRECISION": tiles.precision,
    }


def planes(tiles: tiling.DepthwiseTiles) -> dict[str, object]:
    return {
        "BLOCK_IMAGES": tiles.images,
        "COLUMNS": tiles.columns,
        "WINDOW": tiles.window,
        "PRECISION": tiles.precision,
    }


def dump(kernel: Any, what: str, folder: Path) -> str:
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, what, str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def row_loop(kernel: Any, folder: Path) -> list[str]:
    """The machine instructions from the longest backward jump's target to the jump."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?) *;", dump(kernel, "-sass", folder))
    code = {int(place, 16): text for place, text in found}
    jumps = [
        (int(target[1], 16), place) for place, text in code.items() if (target := re.search(r"BRA.* 0x(\w+)", text))
    ]
    start, end = max(jumps, key=lambda jump: jump[1] - jump[0])
    return [text for place, text in code.items() if start <= place <= end]


def resources(kernel: Any, folder: Path) -> tuple[int, int]:
    """Registers, and bytes of stack (which spilled registers take), of a thread."""
    report = dump(kernel, "-res-usage", folder)
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, report
    return int(found[1]), int(found[2])


def test_depthwise_on_tensor_cores_and_without_spills(tmp_path: Path) -> None:
    kernel = depthwise("bf16", 7, prologue=False, epilogue="none", act=-1)
    assert "wgmma.mma_async" in kernel.asm["ptx"]
    assert resources(kernel, tmp_path)[1] == 0


def test_rows_ahead_are_loaded_whole_and_before_the_products(tmp_path: Path) -> None:
    """Rolled up: no spills, and in the loop loads of 16 bytes alone, [64, 32] values of 128 threads, first of all."""
    for k, act, max_bytes in ((7, 0, 200), (9, SHORT_GELU, 232)):
        kernel = depthwise("bf16", k, prologue=True, epilogue="statistics", act=act, prefetch=2, unroll=False)
        registers, stack = resources(kernel, tmp_path)
        assert stack == 0
        assert registers <= max_bytes
        loop = row_loop(kernel, tmp_path)
        loads = [i for i, text in enumerate(loop) if "LDG." in text]
        assert len(loads) == 2
        assert all("LDG.E.128" in loop[i] for i in loads)
        assert max(loads) < min(i for i, text in enumerate(loop) if "HGMMA" in text)
        assert sum("HGMMA" in text for text in loop) == 2 * k
        assert all("STG.E.128" in text for text in loop if "STG." in text)


def test_three_pointwise_gradients_a_multiprocessor_and_no_spills(tmp_path: Path) -> None:
    """While one program's epilogue waits for memory, another's product runs: 64 K registers, 227 KB shared."""
    for act in (0, 1):
        kernel = pointwise_grad("bf16", act=act)
        registers, stack = resources(kernel, tmp_path)
        assert stack == 0
        assert 3 * registers * 32 * kernel.metadata.num_warps <= 65536
        assert 3 * kernel.metadata.shared <= 227 * 1024


def test_block_gradient_twice_a_multiprocessor_and_no_product_done_twice(tmp_path: Path) -> None:
    """A product [32, 64] x [64, 32] is 32 instructions, 8 for each of four warps, and k = 7 rows have one each."""
    for k, act, forms, max_bytes in (
        (7, 0, {}, 96),
        (7, 0, {"images": 32, "prefetch": 1}, 0),
        (9, SHORT_GELU, {}, 16),
    ):
        kernel = block_grad("bf16", k, act=act, **forms)
        registers, stack = resources(kernel, tmp_path)
        assert stack <= max_bytes
        assert 2 * registers * 32 * kernel.metadata.num_warps <= 65536
        assert 2 * kernel.metadata.shared <= 227 * 1024
    ptx = block_grad("bf16", 7, act=0).asm["ptx"]
    assert "wgmma.mma_async" in ptx
    assert len(re.findall(r"mma\.sync", ptx)) == 7 * 8


def test_weight_gradient() -> None:
    """On tensor cores, no product done twice: 4 instructions for each of four warps and each of k = 3 rows."""
    assert len(re.findall(r"mma\.sync", weight_grad("bf16", 3).asm["ptx"])) == 3 * 4


def test_diagonal_sums() -> None:
    from convmixer.kernels.device.depthwise import diagonal_sums_kernel

    compiled(diagonal_sums_kernel, "fp32", 4, 1, K=9, FLIP=True, COLUMNS=32, WINDOW=64)


def test_a_block() -> None:
    depthwise("bf16", 3, prologue=True, epilogue="statistics", act=1)
    block_grad("bf16", 3, act=1)
    assert "wgmma.mma_async" in pointwise("bf16", statistics=True, act=0).asm["ptx"]
    assert "wgmma.mma_async" in pointwise_grad("bf16", act=1).asm["ptx"]


ELEMENTWISE: dict[str, dict[str, object]] = {
    "mix_kernel": {},
    "activation_sums_kernel": {},
    "activation_grad_kernel": {},
    "norm_sums_kernel": {"MIX": True},
    "pool_kernel": {},
    "pool_grad_kernel": {},
}


def elementwise(name: str, dtype: str, act: int, **constants: object) -> Any:
    """As at 224 px; the gradient of the pooled means is fp32."""
    from convmixer.kernels.device import elementwise

    sizes: dict[str, object] = {"ELEMENTS": tiling.elements(1 << 18)}
    if name.startswith("pool"):
        images, elements = tiling.pool_tile(256, 1024)
        sizes = {"IMAGES": images, "ELEMENTS": elements}
    return compiled(getattr(elementwise, name), dtype, 4, 1, ACT=act, **sizes, **(ELEMENTWISE[name] | constants))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str, tmp_path: Path) -> None:
    """16 bytes per load, and so few registers that no multiprocessor lacks programs whose loads are under way."""
    kernel = elementwise(name, "bf16", 1)
    registers, stack = resources(kernel, tmp_path)
    assert stack == 0
    assert registers <= 64
    assert "ld.global.v4.b32" in kernel.asm["ptx"]
    for dtype in ("fp16", "fp32"):
        elementwise(name, dtype, 1)


def test_elementwise_without_a_bias_or_the_mixed_map() -> None:
    """A pointer of None is a constant."""
    elementwise("norm_sums_kernel", "bf16", 0, MIX=False, mixed_ptr=None, x_bias_ptr=None)
    elementwise("activation_grad_kernel", "bf16", 0, bias_ptr=None)
    pointwise_grad("bf16", act=0, mix=False)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "k"), [("bf16", 3), ("fp32", 5), ("fp16", 7), ("bf16", 9)])
def test_every_side_type_and_form(dtype: str, k: int) -> None:
    for images, width in ((256, 32), (256, 16), (1, 41)):
        size = {"images": images, "width": width}
        depthwise(dtype, k, prologue=False, epilogue="none", act=-1, **size)
        weight_grad(dtype, k, **size)
        block_grad(dtype, k, act=1, **size)
    for act in (0, 1, 2, SHORT_GELU):
        depthwise(dtype, k, prologue=True, epilogue="statistics", act=act)
        depthwise(dtype, k, prologue=True, epilogue="mix", act=act)
        block_grad(dtype, k, act=act)
        pointwise(dtype, statistics=True, act=act)
        pointwise_grad(dtype, act=act)
    pointwise(dtype, statistics=False, act=-1)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "act", "max_bytes"), [(7, 0, 96), (9, 1, 384), (9, SHORT_GELU, 192)])
def test_spills_stay_small(k: int, act: int, max_bytes: int, tmp_path: Path) -> None:
    """Bytes of stack a thread, for the published variants: more than these were not seen, and would be a step back."""
    assert resources(depthwise("bf16", k, prologue=False, epilogue="none", act=-1), tmp_path)[1] == 0
    for kernel in (
        depthwise("bf16", k, prologue=True, epilogue="statistics", act=act),
        depthwise("bf16", k, prologue=True, epilogue="mix", act=act),
        weight_grad("bf16", k),
        block_grad("bf16", k, act=act),
    ):
        registers, stack = resources(kernel, tmp_path)
        assert stack <= max_bytes
        assert 2 * registers * 32 * kernel.metadata.num_warps <= 65536
