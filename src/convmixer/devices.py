"""Which device a command runs on, from what the user asked for and what the machine has."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import Tensor

from convmixer.errors import UserError


def choose_device(target: str | None, index: int, *, is_required: bool) -> tuple[torch.device, str | None]:
    """Device of `device_target`, now this process's current one, and, where the request could not be met, a note.

    The current device is where torch makes what names none: streams, events, graphs, pinned memory, a library's
    workspaces. Whatever runs a network on a GPU gets it from here.

    Left out, or `is_required` False (it stands in a recipe only): a GPU where there is one, else the CPU. Asked for and
    absent: UserError.
    """
    if target == "Ascend":
        return _current(_ascend(index)), None
    if target == "CPU":
        return torch.device("cpu"), None
    if torch.cuda.is_available():
        if index >= torch.cuda.device_count():
            raise UserError(f"--device_id: {index} is not there; this machine has {torch.cuda.device_count()} GPU(s)")
        return _current(torch.device("cuda", index)), None
    if target == "GPU" and is_required:
        raise UserError("--device_target: no GPU that torch can use was found; leave it out to run on the CPU")
    return torch.device("cpu"), "no GPU found, running on the CPU"


def _current(device: torch.device) -> torch.device:
    torch.get_device_module(device).set_device(device)
    return device


def _ascend(index: int) -> torch.device:
    if importlib.util.find_spec("torch_npu") is None:
        raise UserError("--device_target: Ascend needs the package torch_npu, which is not installed")
    importlib.import_module("torch_npu")
    return torch.device("npu", index)


def memory_format(kernel_size: int, device: torch.device) -> torch.memory_format:
    """The faster layout of eager convolutions: channels last, but for kernels past 7 on GPUs."""
    # cuDNN has depthwise kernels in channels-last layout for sides 5 and 7, none for 9.
    slow = device.type == "cuda" and kernel_size > 7
    return torch.contiguous_format if slow else torch.channels_last


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` as a tensor on `device`, of the same dtype and shape, without waiting for the device.

    CUDA stages a copy from ordinary memory before the call returns, so that `array` may be reused; without
    `non_blocking` torch would wait for all work before it.
    """
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
