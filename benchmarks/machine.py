"""What this machine is and what it can do at best: processor, GPU, versions, copy and product rate.

python benchmarks/machine.py [--device cpu] [--elements N --side N] [--output machine.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "timm", "triton", "onnxruntime", "openvino", "numpy")
# What the program stands on besides, said where the session on a GPU starts: some of its steps need all of them.
OTHERS = ("pillow", "pyyaml", "tqdm", "pytest", "pydantic", "tensorboardX", "safetensors", "simplejpeg")


def hardware() -> dict[str, Any]:
    """The processor with what speeds matrix products up, its threads, and the GPU."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    for line in text.splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if f" {flag} " in f"{text} "]
    found: dict[str, Any] = {"processor": model, "flags": flags, "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | ({"cuda": str(torch.version.cuda)} if torch.cuda.is_available() else {})


def roofline(device: torch.device, elements: int | None = None, side: int | None = None) -> dict[str, float]:
    """Best of several: GB/s read plus written by a copy, and TFLOP/s of a matrix product in fp32 and bf16.

    Left out, `elements` (of fp32) and `side` are large enough for the device.
    """
    on_gpu = device.type == "cuda"
    elements = elements or (1 << 30 if on_gpu else 1 << 26) // 4
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)
    found = {"copy_gb_per_s": round(2 * source.nbytes / _best(lambda: target.copy_(source), device) / 1e9, 1)}
    side = side or (8192 if on_gpu else 2048)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.rand(side, side, device=device).to(dtype)
        b = torch.rand(side, side, device=device).to(dtype)
        seconds = _best(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
        found[f"matmul_{name}_tflop_per_s"] = round(2 * side**3 / seconds / 1e12, 3)
    return found


def _best(step: Callable[[], object], device: torch.device, times: int = 10) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def driver() -> str | None:
    """What the driver says of its GPU: name, version, memory, clocks and the limit of power."""
    if shutil.which("nvidia-smi") is None:
        return None
    fields = "name,driver_version,memory.total,memory.used,clocks.max.sm,clocks.max.memory,power.limit,utilization.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout.strip() or done.stderr.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--elements", type=int, default=None, help="fp32 values of the copy")
    parser.add_argument("--side", type=int, default=None, help="of the matrices")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    device = torch.device(options.device)
    found: dict[str, Any] = {"hardware": hardware(), "versions": versions(PACKAGES + OTHERS)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = {"capability": torch.cuda.get_device_capability(device), "gb": properties.total_memory / 1e9}
        found["gpu"]["multiprocessors"] = properties.multi_processor_count
        found["gpu"]["cudnn"] = torch.backends.cudnn.version()
        found["driver"] = driver()
    print(json.dumps(found), flush=True)
    found["roofline"] = roofline(device, options.elements, options.side)
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{name} {value:g}" for name, value in found["roofline"].items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
