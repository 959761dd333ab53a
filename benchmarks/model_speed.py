"""How fast ConvMixer runs: timm's module, other engines and this project's backends, interleaved in one run.

    python benchmarks/model_speed.py                    all parts of the device at hand
    python benchmarks/model_speed.py --parts inference --variants convmixer_768_32 --rounds 7
    python benchmarks/model_speed.py --only "timm eager NCHW" "ours fused"

Every contender's answer is checked against fp32 before it is timed. Each round runs every contender of a setting once,
so that a disturbance hits all alike; the medians of the rounds are reported, and ratios to timm's eager module. The
result goes to benchmarks/results/ as JSON, a Markdown table and, where matplotlib is installed, a chart. Engines that
are not installed are left out with a note: `pip install "convmixer[bench]"` brings them.

timm's module computes what the authors' does: only the parameters' names differ.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import torch
from machine import roofline
from model_speed_contenders import Setting
from model_speed_engines import CONTENDERS
from model_speed_report import write_report
from model_speed_timing import time_setting

# Of a setting on a GPU, and on a CPU. The small network is the one that people train on CIFAR-10.
VARIANTS = ("convmixer_768_32", "convmixer_1024_20", "convmixer_1536_20")
SMALL = "convmixer_256_8_ks5_p2"
# An image's share of an eager training step in bf16 at 224 px, predicted (NOTES.md, "Memory").
EAGER_MB = {"convmixer_768_32": 209, "convmixer_1024_20": 66, "convmixer_1536_20": 394}


def settings(device: torch.device, options: argparse.Namespace) -> list[Setting]:
    """What is measured: each variant, inference and training, in each precision."""
    on_gpu = device.type == "cuda"
    found = []
    for part in options.parts:
        lowest = ["int8"] if part == "inference" else []
        precisions = options.precisions or (["bf16"] if on_gpu else ["fp32", "bf16", *lowest])
        for variant in options.variants:
            small = variant == SMALL
            if on_gpu:
                batch = 512 if small else fitting(variant, 256) if part == "training" else 256
            else:
                batch = 64 if small else 8 if part == "inference" else 4
            for precision in precisions:
                size = options.size or (32 if small else 224)
                found.append(Setting(variant, part, precision, options.batch or batch, size, device))
    return found


def fitting(variant: str, batch: int) -> int:
    """The batch, halved until a training step of timm's eager module should fit into this GPU."""
    memory = torch.cuda.get_device_properties(0).total_memory
    while batch * EAGER_MB.get(variant, 0) * 1e6 > 0.85 * memory:
        batch //= 2
    return batch


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    parser.add_argument("--variants", nargs="+", default=None, help="networks; left out: what suits the device")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "int8"), default=None)
    parser.add_argument("--only", nargs="+", default=None, help=f"contenders, of: {', '.join(CONTENDERS)}")
    parser.add_argument("--batch", type=int, default=None, help="images at once; left out: by variant and device")
    parser.add_argument("--size", type=int, default=None, help="side of the images; left out: by variant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=None, help="no new round of a setting after so many seconds")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; left out: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--name", default=None, help="name of the result files; left out: device and date")
    options = parser.parse_args(argv)
    if options.variants is None:
        options.variants = list(VARIANTS) if options.device == "cuda" else [VARIANTS[0], SMALL]
    unknown = set(options.only or ()) - set(CONTENDERS)
    if unknown:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    device = torch.device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    seconds = options.seconds or (8.0 if device.type == "cuda" else 120.0)
    started = time.monotonic()
    result: dict[str, Any] = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        # What was run, not where the results went.
        "options": {name: value for name, value in vars(options).items() if name not in ("output", "name")},
        "roofline": roofline(device),
        "settings": [],
    }
    name = options.name or f"{device.type}_{datetime.now():%Y-%m-%d}"
    for setting in settings(device, options):
        load = os.getloadavg()[0]
        rows = time_setting(setting, options.only or list(CONTENDERS), options.rounds, seconds)
        result["settings"].append({**setting.describe(), "load_before": round(load, 2), "rows": rows})
        result["minutes"] = round((time.monotonic() - started) / 60, 1)
        # After every setting, so that a run that is cut short leaves what it has.
        write_report(result, options.output, name)
    print(json.dumps({"minutes": result["minutes"], "results": f"{name}.json"}))
    for measured in result["settings"]:
        speeds = [f"{row['name']} {row.get('images_per_second') or 'failed'}" for row in measured["rows"]]
        print(f"{measured['title']}, img/s: {', '.join(speeds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
