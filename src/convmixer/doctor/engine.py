"""torch, its GPUs, the compiler that it calls, and a forward pass; each check survives what it finds broken."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convmixer.arch import architecture
from convmixer.doctor.check_result import CheckResult
from convmixer.doctor.machine import GIB
from convmixer.errors import first_line
from convmixer.network_costs import max_batch
from convmixer.packages import install_command

_MIN_TORCH = (2, 11)
_ARCH, _BATCH, _SIZE = "convmixer_256_8_ks7_p14", 4, 224
_LARGE = "convmixer_768_32"
_INSTALL = f"{install_command('torch')}; https://pytorch.org/get-started names the build for a machine"


def engine() -> Iterator[CheckResult]:
    """The answers on torch; a single one where it cannot be imported."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a missing library of CUDA is an OSError or an ImportError, a broken build anything
        found = f"cannot be imported: {first_line(error)}"
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            found = "not installed: what needs no torch runs, as eval and infer of ONNX files and check-data"
        yield CheckResult("torch", "error", found, _INSTALL)
        return
    yield _build(torch)
    yield from _gpus(torch)
    yield compiler()
    yield forward_pass(torch)


def _build(torch: Any) -> CheckResult:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    found = f"{torch.__version__}, built for {build}, {torch.get_num_threads()} threads"
    number = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if number is None or (int(number[1]), int(number[2])) < _MIN_TORCH:
        return CheckResult("torch", "error", found, _INSTALL)
    return CheckResult("torch", "ok", found)


def _gpus(torch: Any) -> Iterator[CheckResult]:
    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None:
            yield CheckResult("gpu", "ok", "none; runs on the CPU")
        elif torch.version.cuda is None:
            yield CheckResult("gpu", "warning", f"there (driver {driver}), but torch is built without CUDA", _INSTALL)
        else:
            fix = f"install a driver for CUDA {torch.version.cuda}, or see whether CUDA_VISIBLE_DEVICES hides the GPU"
            yield CheckResult("gpu", "warning", f"there (driver {driver}), but torch cannot use it", fix)
        return
    for index in range(torch.cuda.device_count()):
        gpu = _gpu(torch, index, driver)
        yield gpu
        if gpu.status != "error":
            yield _batch(torch, index)
    count = torch.cuda.device_count()
    if torch.distributed.is_nccl_available():
        number = ".".join(map(str, torch.cuda.nccl.version()))
        yield CheckResult("nccl", "ok", f"{number}, for {count} GPU{'s' if count > 1 else ''}")
    elif count > 1:
        yield CheckResult("nccl", "warning", "not in this build of torch, so that only one GPU can be used", _INSTALL)


def _gpu(torch: Any, index: int, driver: str | None) -> CheckResult:
    name = f"gpu {index}"
    properties = torch.cuda.get_device_properties(index)
    capability = f"{properties.major}.{properties.minor}"
    found = f"{properties.name}, driver {driver or 'unknown'}, compute capability {capability}"
    try:
        free, total = torch.cuda.mem_get_info(index)
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        if (ones @ ones).sum().item() != 64**3:
            raise RuntimeError("a product of matrices came out wrong")
    except RuntimeError as error:
        built = " ".join(torch.cuda.get_arch_list())
        fix = f"restart the machine or its driver, or install a torch built for it (this one: {built})"
        return CheckResult(name, "error", f"{found}: {first_line(error)}", fix)
    found += (
        f", {free / GIB:.1f} of {total / GIB:.1f} GiB free, bf16 {'yes' if properties.major >= 8 else 'slow or none'}"
    )
    if free < total / 2:
        return CheckResult(
            name, "warning", found, "another program holds its memory (nvidia-smi names it); end that one"
        )
    return CheckResult(name, "ok", found)


def _batch(torch: Any, index: int) -> CheckResult:
    """What of the network that needs most memory for its speed fits, so that it is not found out by trying."""
    memory, arch = torch.cuda.get_device_properties(index).total_memory, architecture(_LARGE)
    eager, recomputed = (max_batch(memory, arch, _SIZE, recompute=recompute) for recompute in (False, True))
    found = f"768/32 trains at {_SIZE} px in 16 bits (--amp_level O1) with up to {eager}, --recompute {recomputed}"
    return CheckResult(f"batch {index}", "ok", f"{found}; by a count of what is kept, not tried")


def _driver() -> str | None:
    """Version of the NVIDIA driver, or None where no GPU of NVIDIA is seen."""
    text = Path("/proc/driver/nvidia/version")
    if text.is_file():
        number = re.search(r"Module\s+(?:for\s+\S+\s+)?([\d.]+)", text.read_text(encoding="utf-8", errors="replace"))
        return number[1] if number else "unknown"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None


def compiler() -> CheckResult:
    """Whether torch.compile could build for the CPU: C++ with OpenMP and Python's headers, by building it."""
    name, fix = "C++ compiler", "apt-get install g++ python3-dev, or leave --compile out"
    wanted = os.environ.get("CXX") or "g++"
    path = shutil.which(wanted) or shutil.which("clang++")
    if path is None:
        return CheckResult(name, "warning", f"no {wanted} was found; torch.compile needs one", fix)
    source = "#include <Python.h>\n#include <omp.h>\nint threads() { return omp_get_max_threads(); }\n"
    command = [path, "-x", "c++", "-", "-shared", "-fPIC", "-fopenmp", f"-I{sysconfig.get_path('include')}"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*command, "-o", f"{folder}/trial.so"], input=source, capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return CheckResult(name, "warning", f"{path}: {first_line(error)}", fix)
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), "it failed")
        return CheckResult(name, "warning", f"{path}: {reason.strip()}", fix)
    return CheckResult(name, "ok", path)


def forward_pass(torch: Any) -> CheckResult:
    """Time of a small network on random images, on the first GPU or else the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    what = f"{_ARCH}, {_BATCH} images of {_SIZE} px on the {'GPU' if device == 'cuda' else 'CPU'}"
    try:
        from convmixer.model import create_model

        model = create_model(_ARCH, num_classes=10).to(device)
        images = torch.randn(_BATCH, 3, _SIZE, _SIZE, device=device)
        with torch.inference_mode():
            model(images)
            start = time.perf_counter()
            # To read the answer waits for the GPU.
            finite = bool(model(images).isfinite().all().item())
            seconds = time.perf_counter() - start
    except Exception as error:  # whatever torch or a driver raises is what the user should read
        return CheckResult("forward pass", "error", f"{what}: {first_line(error)}", f"install torch anew: {_INSTALL}")
    if not finite:
        return CheckResult("forward pass", "error", f"{what}: not finite", f"install torch anew: {_INSTALL}")
    return CheckResult("forward pass", "ok", f"{seconds * 1000:.0f} ms ({what})")
