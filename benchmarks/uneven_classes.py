"""What `--balance` does for rare classes: recall of the rare and of the frequent ones on digits made uneven.

    python benchmarks/uneven_classes.py [--kept 6] [--seeds 3] [--epochs 40]

Writes the built-in digits as an image folder in which the classes 5 to 9 keep `--kept` training images each and 0 to 4
all of theirs; the evaluation images stay even. Trains the recipe `digits` on it once per seed and way, evaluates the
last weights (the best would have been chosen by the very images that count here), and prints a table of means.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SOURCE = Path(__file__).resolve().parent.parent / "src"
sys.path.insert(0, str(SOURCE))

from convmixer.data.sources.digits import open_digits

RARE = range(5, 10)
WAYS = {
    "none": ["--balance", "none"],
    "weights": ["--balance", "weights"],
    "sampler": ["--balance", "sampler"],
    "none, focal": ["--balance", "none", "--loss", "focal"],
}


def write_folder(folder: Path, kept: int) -> None:
    """The digits as `train` and `val` of image files, of the rare classes only the first `kept` for training."""
    for split in ("train", "val"):
        source = open_digits(train=split == "train")
        for label in range(10):
            indices = np.flatnonzero(source.labels == label)
            place = folder / split / str(label)
            place.mkdir(parents=True)
            for index in indices[:kept] if split == "train" and label in RARE else indices:
                Image.fromarray(source.read(int(index))[..., 0]).save(place / f"{index}.png")


def recalls(folder: Path, runs: Path, words: Sequence[str]) -> tuple[float, float, float]:
    """Mean recall of the rare and of the frequent classes, and top-1, of the last weights of one run."""
    out = run("train", "--config", "digits", "--set", "imagenet", "--data_url", folder, *words, cwd=runs)
    last = next(line for line in out.splitlines() if line.startswith("last: ")).removeprefix("last: ")
    run("eval", "--pretrained", last, "--data_url", folder, "--json", "score.json", cwd=runs)
    score = json.loads((runs / "score.json").read_text())
    by_class = {int(entry["name"]): entry["recall"] for entry in score["classes"]}
    rare, frequent = (
        [by_class[label] for label in by_class if (label in RARE) == is_rare] for is_rare in (True, False)
    )
    return float(np.mean(rare)), float(np.mean(frequent)), score["top1"]


def run(*words: object, cwd: Path) -> str:
    command = [sys.executable, "-m", "convmixer", *map(str, words), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=int, default=6, help="training images of each rare class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name) / "digits", time.monotonic()
        write_folder(folder, options.kept)
        print("| balance | recall of the rare classes | of the frequent ones | top-1 |\n|---|---|---|---|")
        for way, words in WAYS.items():
            each = [
                recalls(folder, Path(name), [*words, "--seed", str(seed), "--epochs", str(options.epochs)])
                for seed in range(options.seeds)
            ]
            cells = [
                f"{np.mean(values):.1%} ({np.min(values):.1%} to {np.max(values):.1%})"
                for values in zip(*each, strict=True)
            ]
            print(f"| {way} | {' | '.join(cells)} |", flush=True)
        print(f"\n{options.seeds} seeds each, mean (lowest to highest); {time.monotonic() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
