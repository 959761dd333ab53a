"""Where the time of a step goes: two steps of each variant under torch's profiler, by kernel.

    python benchmarks/network_profile.py [--variants ...] [--parts training inference] [--batch 256] [--output FOLDER]

The fused network under bf16 autocast, as `--execution fused` runs it without a graph. Prints for each variant the
kernels by the time they take on the device, with what they take for a step and its share, and the time in which the
device had nothing to do; writes the same, and as JSON, to the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import torch
from pictures import pictures
from torch import nn
from torch.profiler import ProfilerActivity, profile

from convmixer.arch import VARIANTS, parse_arch
from convmixer.backends.registry import backends_for
from convmixer.backends.workload import Workload
from convmixer.model import ConvMixer

STEPS = 2


def step_of(variant: str, part: str, options: argparse.Namespace) -> tuple[Callable[[], object], str]:
    """A step of the fused backend where there is one, else of plain eager; and the backend's name."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = ConvMixer(parse_arch(variant)).to(device).train(part == "training")
    workload = Workload(model.arch, options.size, options.batch, torch.bfloat16, part == "training", device)
    backends = backends_for(workload)
    backend = next((backend for backend in backends if backend.kind == "fused"), backends[0])
    network = backend.network(model, workload)
    images = pictures(options.batch, options.size, seed=0).to(device)
    labels = torch.randint(model.arch.num_classes, (options.batch,), device=device)

    def infer() -> None:
        with torch.inference_mode(), workload.autocast():
            network(images)

    def train() -> None:
        model.zero_grad(set_to_none=True)
        with workload.autocast():
            logits = network(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()

    return (train if part == "training" else infer), backend.full_name


def profiled(step: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Kernels (on a CPU: operators) of a step: milliseconds, calls, share of each; the step's length on the device."""
    on_gpu = device.type == "cuda"
    for _ in range(3):
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(STEPS):
            step()
        if on_gpu:
            torch.cuda.synchronize(device)
    totals: dict[str, list[float]] = {}
    begin, end = float("inf"), 0.0
    for event in found.events() or []:
        if on_gpu and event.device_type != torch.autograd.DeviceType.CUDA:  # type: ignore[attr-defined]
            continue
        taken = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        total = totals.setdefault(event.name, [0.0, 0.0])
        total[0] += taken / 1e3 / STEPS
        total[1] += 1 / STEPS
        begin, end = min(begin, event.time_range.start), max(end, event.time_range.end)
    busy = sum(total[0] for total in totals.values())
    length = (end - begin) / 1e3 / STEPS
    kernels = [
        {"name": name, "ms": round(ms, 4), "calls": calls, "share": round(ms / busy, 4)}
        for name, (ms, calls) in sorted(totals.items(), key=lambda item: -item[1][0])
    ]
    return {"busy_ms": round(busy, 3), "length_ms": round(length, 3), "kernels": kernels}


def table(title: str, found: dict[str, Any], rows: int) -> str:
    lines = [f"{title}: {found['busy_ms']:.1f} ms of kernels in a step of {found['length_ms']:.1f} ms"]
    for kernel in found["kernels"][:rows]:
        lines.append(f"  {kernel['ms']:9.3f} ms {kernel['share']:6.1%} {kernel['calls']:6.0f} x {kernel['name'][:100]}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--parts", nargs="+", choices=("training", "inference"), default=["training"])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rows", type=int, default=14, help="kernels that are printed")
    parser.add_argument("--output", type=Path, default=None, help="folder of the results")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for variant in options.variants:
        for part in options.parts:
            step, backend = step_of(variant, part, options)
            title = f"{variant} {part}, batch {options.batch}, {backend}"
            result[title] = profiled(step, torch.device(options.device))
            print(table(title, result[title], options.rows), flush=True)
            if options.output is not None:
                text = "\n\n".join(table(name, found, 60) for name, found in result.items())
                (options.output / "profile.txt").write_text(text + "\n", encoding="utf-8")
                (options.output / "profile.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            del step
    for title, found in result.items():
        print(f"{title}: kernels {found['busy_ms']:.1f} ms, step {found['length_ms']:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
