"""Where the kernels apply. Elsewhere torch's operators run, and the reason is logged once."""

from __future__ import annotations

import importlib.util
import logging
import os

import torch

logger = logging.getLogger(__name__)

KERNEL_SIZES = (3, 5, 7, 9)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

_TRITON = importlib.util.find_spec("triton") is not None
# Triton decides on its interpreter, which runs kernels on CPU tensors, when a kernel is defined: once per process.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_logged: set[str] = set()


def reason_against(device: torch.device, dtype: torch.dtype, kernel_size: int) -> str | None:
    """Why a depthwise convolution of maps of this type cannot run on the kernels; None where it can."""
    if not _TRITON:
        return "Triton is not installed"
    if device.type != "cuda" and not _INTERPRETED:
        return f"they need a CUDA GPU, this is {device.type}"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "they need a GPU of compute capability 8.0 or more"
    if kernel_size not in KERNEL_SIZES:
        return f"they are for kernels of side {', '.join(map(str, KERNEL_SIZES))}, this has {kernel_size}"
    if dtype not in DTYPES:
        return f"they are for fp16, bf16 and fp32, this is {dtype}"
    return None


def slow_rows(image_size: int, patch_size: int) -> str | None:
    """What maps of images of this width cost whose rows 16 does not divide; None where they cost nothing.

    A row of such a map does not start at a multiple of 16 bytes, so that the kernels which walk over rows load single
    values where they load eight else.
    """
    width = image_size // patch_size
    if width % 16 == 0:
        return None
    side = max(1, round(width / 16)) * 16
    return (
        f"rows of {width} values, which 16 does not divide, are loaded and stored value by value; "
        f"images {side * patch_size} pixels wide have rows of {side}"
    )


def has_contiguous_planes(x: torch.Tensor) -> bool:
    """Whether each map of x, [N, C, H, W], lies in one piece: [N, C, H, W] and [C, N, H, W] in memory do."""
    return x.stride(3) == 1 and x.stride(2) == x.shape[3]


def log_once(text: str) -> None:
    """Logs a line, but not one that was logged before, and none while torch traces a graph."""
    if not torch.compiler.is_compiling() and text not in _logged:
        _logged.add(text)
        logger.info(text)
