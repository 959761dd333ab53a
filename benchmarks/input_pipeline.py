"""How fast training batches are made of image files, per core and by stage: this project, timm, torchvision, DALI.

    python benchmarks/input_pipeline.py DATA                    200 files below DATA, pinned to one core
    python benchmarks/input_pipeline.py DATA --packed PACKED    and what `convmixer pack DATA PACKED` made of them

Each round runs every contender once over the same files, so that a disturbance hits all alike; the medians of the
rounds are reported, and ratios to timm's whole chain in the same round. One thread on one core: loader processes do
the same side by side. DALI is left out where it is not installed. The result goes to benchmarks/results/ as JSON, a
Markdown table and, where matplotlib is installed, a chart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import torch
from input_contenders import SIZE, STAGES, Contender, contenders
from machine import hardware, versions
from model_speed_report import write_files

from convmixer.data.folders import open_files
from convmixer.data.splits import open_split

PACKAGES = ("torch", "torchvision", "timm", "pillow", "simplejpeg", "numpy", "nvidia-dali-cuda120")


def seconds_by_stage(contender: Contender, batch: int) -> dict[str, float]:
    """Seconds that each stage takes for all the images, in batches."""
    taken: dict[str, float] = defaultdict(float)
    clock = time.perf_counter
    for first in range(0, len(contender.items), batch):
        made = []
        for value in contender.items[first : first + batch]:
            for name, stage in contender.each:
                start = clock()
                value = stage(value)
                taken[name] += clock() - start
            made.append(value)
        value = made
        for name, stage in contender.batch:
            start = clock()
            value = stage(value)
            taken[name] += clock() - start
    return dict(taken)


def measure(found: dict[str, Contender], batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row per contender: images per second, its ratio to the first one, microseconds per image of each stage."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in found}
    for _ in range(rounds + 1):  # the first one warms up
        for name, contender in found.items():
            taken[name].append(seconds_by_stage(contender, batch))
    rows, base = [], [sum(stages.values()) for stages in next(iter(taken.values()))[1:]]
    for name, (_, *every) in taken.items():
        count = len(found[name].items)
        totals = [sum(stages.values()) for stages in every]
        ratios = [one / other for one, other in zip(base, totals, strict=True)]
        stages = {
            stage: round(statistics.median(one[stage] for one in every) / count * 1e6)
            for stage in STAGES
            if stage in every[0]
        }
        rate = count / statistics.median(totals)
        row = {"name": name, "images_per_second": round(rate), "ratio": round(statistics.median(ratios), 2)}
        rows.append(row | {"spread": [round(min(ratios), 2), round(max(ratios), 2)], "microseconds": stages})
    return rows


def _kilobytes(sizes: Sequence[int]) -> str:
    return f"{sum(sizes) / len(sizes) / 1000:.0f} kB each on average"


def table(result: dict[str, Any], picture: str | None) -> str:
    """Markdown."""
    lines = [f"# Speed of the input pipeline, {result['date']}", "", "By `benchmarks/input_pipeline.py`.", ""]
    lines += [f"* {name}: {value}" for name, value in (*result["hardware"].items(), *result["versions"].items())]
    lines += [
        f"* {result['images']} files, {result['files']}; crops of {SIZE} px; one core; {result['rounds']} rounds",
        *([f"* packed: {result['packed']}"] if result["packed"] else []),
        "",
        "Images per second on one core: the median of the rounds. Ratio to timm's whole chain: the median over the"
        " rounds of the ratio in the same round, and the lowest and highest. Then microseconds per image by stage.",
        "",
    ]
    if picture is not None:
        lines += [f"![chart]({picture})", ""]
    lines += [
        "| contender | images per second | ratio | " + " | ".join(STAGES) + " |",
        "|---" * (3 + len(STAGES)) + "|",
    ]
    for row in result["rows"]:
        low, high = row["spread"]
        cells = [row["name"], row["images_per_second"], f"{row['ratio']} ({low} to {high})"]
        cells += [row["microseconds"].get(stage, "") for stage in STAGES]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, ""])


def chart(result: dict[str, Any], path: Path) -> None:
    """A bar per contender, cut into its stages, in microseconds per image. Raises ImportError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = result["rows"]
    names = [row["name"] for row in rows]
    figure, axis = pyplot.subplots(figsize=(9, 0.55 * len(rows) + 1.6))
    left = [0.0] * len(rows)
    for stage in STAGES:
        widths = [row["microseconds"].get(stage, 0) for row in rows]
        if any(widths):
            axis.barh(names, widths, left=left, label=stage)
            left = [one + other for one, other in zip(left, widths, strict=True)]
    for place, (end, row) in enumerate(zip(left, rows, strict=True)):
        axis.text(end, place, f" {row['images_per_second']} per second ({row['ratio']} x)", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.35 * max(left))  # room for the words
    axis.set_xlabel("microseconds per image on one core; the shorter the better", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7, ncols=len(STAGES), loc="upper center", bbox_to_anchor=(0.4, -0.09))
    axis.set_title(f"{result['hardware']['processor']}, {result['date']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of photos")
    parser.add_argument("--packed", default=None, help="folder that `convmixer pack` made of the same photos")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="the processor's core that all is pinned to")
    parser.add_argument("--only", nargs="+", default=None, help="contenders; timm's whole chain is always there")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--name", default=None, help="name of the result files; left out: the date")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    files = open_files(options.data, recursive=True)
    paths = [files.name(index) for index in range(min(options.images, len(files)))]
    packed = None if options.packed is None else open_split("shards", options.packed, "train", train=True)
    found = contenders(paths, options.batch, packed)
    if options.only:
        found = {name: one for place, (name, one) in enumerate(found.items()) if place == 0 or name in options.only}
    rows = measure(found, options.batch, options.rounds)
    result: dict[str, Any] = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "images": len(paths),
        "files": _kilobytes([Path(path).stat().st_size for path in paths]),
        "packed": packed and _kilobytes([len(bytes(packed.read(index))) for index in range(len(packed))]),
        "rounds": options.rounds,
        "load": round(os.getloadavg()[0], 2),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "rows": rows,
    }
    name = options.name or f"input_pipeline_{datetime.now():%Y-%m-%d}"
    write_files(result, options.output, name, json.dumps(result, indent=1), chart, table)
    for row in rows:
        print(f"{row['name']}: {row['images_per_second']} images per second, {row['ratio']} times timm's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
