"""The largest batch that trains on this GPU: the three published variants at 224 px under bf16 autocast, with AdamW.

    python benchmarks/max_batch.py [--variants ...] [--output benchmarks/results/max_batch.json]

For each variant and each of four forms, plain eager and our fused kernels, both without and with --recompute, in a
process of its own: the batch is doubled until a training step runs out of memory, and the gap is halved to a
thirty-second of the answer. A trial is two steps, forward, backward and update. Prints a table; after each line the
same as JSON, with hardware and versions. `--device cpu` shows that it works: there a batch of `--most` is the limit.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from torch import nn

from convmixer.arch import VARIANTS, parse_arch
from convmixer.backends.autotune.benchmark import reason
from convmixer.backends.registry import backends_for
from convmixer.backends.workload import Workload
from convmixer.kernels.block import reason_against_fused
from convmixer.model import ConvMixer
from convmixer.training.memory_use import largest

FORMS = ("eager", "fused", "eager recompute", "fused recompute")


def train(variant: str, kind: str, batch: int, options: argparse.Namespace) -> float:
    """Two training steps; gives the peak of allocated memory in GB. Raises torch.OutOfMemoryError."""
    device, size = torch.device(options.device), options.size
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    elif batch > options.most:
        raise torch.OutOfMemoryError(f"more than {options.most} images")
    name, _, recompute = kind.partition(" ")
    model = ConvMixer(parse_arch(variant)).to(device).train()
    workload = Workload(model.arch, size, batch, torch.bfloat16, True, device, recompute=bool(recompute))
    network = next(backend for backend in backends_for(workload) if backend.kind == name).network(model, workload)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(model.arch.num_classes, (batch,), device=device)
    with workload.autocast():
        against = reason_against_fused(model, images) if on_gpu and name == "fused" else None
    if against is not None:
        raise RuntimeError(f"not our kernels: {against}")
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        with workload.autocast():
            logits = network(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
    if not on_gpu:
        return 0.0
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def search(variant: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """In this process: the largest batch, its peak memory, and why the search ended where that was not for memory."""
    peaks: dict[int, float] = {}
    stopped: list[str] = []

    def fits(batch: int) -> bool:
        try:
            peaks[batch] = train(variant, kind, batch, options)
        except Exception as error:  # a kernel's own limit counts too, and is said
            if not isinstance(error, torch.OutOfMemoryError):
                stopped.append(f"at {batch}: {reason(error)}")
            return False
        finally:
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
        return True

    batch = largest(fits)
    return {"batch": batch, "peak_gb": round(peaks.get(batch, 0.0), 2), "stopped": stopped[0] if stopped else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--kinds", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--most", type=int, default=2, help="images that fit into the device, where that is a CPU")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=FORMS, help="only this form of the first variant, in this process, as JSON")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("max_batch: needs a CUDA GPU")
    if options.one is not None:
        print(json.dumps(search(options.variants[0], options.one, options)))
        return
    record: dict[str, Any] = {"torch": torch.__version__, "size": options.size, "dtype": "bf16"}
    if options.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        record |= {"gpu": gpu.name, "gb": gpu.total_memory / 1e9}
    results: dict[str, Any] = {}
    # Without it the allocator's pieces of one size may keep out those of the next.
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    given = [f"--{name}={getattr(options, name)}" for name in ("size", "device", "most")]
    for variant in options.variants:
        for kind in options.kinds:
            command = [sys.executable, __file__, "--one", kind, "--variants", variant, *given]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"exit": done.returncode}
            results[f"{variant}, {kind}"] = found
            print(f"{variant:20} {kind:15} {found}", flush=True)
            if options.output is not None:
                options.output.write_text(json.dumps(record | {"results": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
