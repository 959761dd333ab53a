"""Whether it still trains: the learning curves of a fast backend beside those of the plain one.

    python benchmarks/training_curves.py digits
    python benchmarks/training_curves.py cifar10 --data_url FOLDER
    python benchmarks/training_curves.py cifar10 --data_url FOLDER --train_num_samples 2000 --epochs 3 --batch_size 64

Trains ConvMixer-256/8 by `convmixer train` from each of the `--seeds` in each of the `--executions`. Runs of one seed
have the same weights at first, the same batches and the same augmentation: what tells them apart is rounding, which
training magnifies. So their distance is weighed against that of two seeds of the first execution: the loss (mean over
an epoch), and the last top-1. All other options, --amp_level among them, are handed to `convmixer train`.
The result goes to benchmarks/results/ as JSON, Markdown and, where matplotlib is installed, a chart.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
sys.path[:0] = [str(SOURCE), str(HERE)]

from training_curves_report import write_report

SETS = {
    # The network of CIFAR-10 at the digits' patch size: their images are 8 x 8 pixels.
    "digits": ["--config", "digits", "--arch", "convmixer_256_8"],
    "cifar10": ["--config", "cifar10_256_8"],
}
# Every step's loss into metrics.jsonl, a top-1 per epoch, and little else.
RECORDING = "--summary_loss_collect_freq 1 --eval_every 1 --ckpt_keep_num 1 --print_loss_every 100".split()
FIRST_STEPS = 10


@dataclass(frozen=True)
class Curve:
    """One run: the loss of each step, top-1 (a share) after each epoch, evaluation images, and how it was run.

    `steps_per_epoch`: len(losses) / epochs; `backend`: what the program logged of its execution; `seconds`: of the
    whole command, from its start.
    """

    execution: str
    seed: int
    losses: list[float]
    top1: list[float]
    steps_per_epoch: int
    evaluation_images: int
    backend: str
    seconds: float

    def epoch_losses(self) -> list[float]:
        """Mean loss of each epoch's steps."""
        size = self.steps_per_epoch
        return [math.fsum(self.losses[at : at + size]) / size for at in range(0, len(self.losses), size)]


def train(data: str, execution: str, seed: int, options: Sequence[str]) -> Curve:
    """Run `convmixer train` in a process and a folder of its own. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        roots = [f"--{kind}_root_dir={folder}/{kind}" for kind in ("summary", "ckpt", "best_ckpt")]
        chosen = ["--execution", execution, "--seed", str(seed)]
        words = ["train", *SETS[data], *RECORDING, *options, *chosen, *roots]
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "convmixer.cli.main", *words],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - start
        if done.returncode != 0:
            raise RuntimeError(f"{execution}, seed {seed}: {done.stderr[-2000:]}")
        (summary,) = Path(folder, "summary").iterdir()
        lines = [json.loads(line) for line in (summary / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        (images,) = json.loads((summary / "run.json").read_text(encoding="utf-8"))["images"][1:]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    top1 = [line["Top1-Acc"] for line in lines if line["kind"] == "eval"]
    said = [line.partition(": ")[2] for line in done.stderr.splitlines() if line.startswith("execution: ")]
    backend = "; ".join(said) or execution
    return Curve(execution, seed, losses, top1, len(losses) // len(top1), images, backend, round(seconds, 1))


def distance(one: Curve, other: Curve) -> dict[str, float]:
    """How far two runs are apart: `loss`, the most over epochs; `top1`, at the end; `first_steps`, of the losses of the
    first FIRST_STEPS steps, relative."""
    firsts = zip(one.losses[:FIRST_STEPS], other.losses[:FIRST_STEPS], strict=True)
    return {
        "loss": max(abs(a - b) for a, b in zip(one.epoch_losses(), other.epoch_losses(), strict=True)),
        "top1": abs(one.top1[-1] - other.top1[-1]),
        "first_steps": max(abs(a - b) / abs(b) for a, b in firsts),
    }


def compare(curves: Sequence[Curve]) -> dict[str, Any]:
    """Distances of each execution to the first one at the same seed, and the most between two seeds of the first.

    `trains_alike` is true where an execution's losses are never further off than two seeds are, and its last top-1 is
    not either, or is within two standard errors of what so many evaluation images can tell; None with one seed.
    """
    first = curves[0].execution
    references = {curve.seed: curve for curve in curves if curve.execution == first}
    seeds = [distance(one, other) for seed, one in references.items() for at, other in references.items() if at > seed]
    spread = {key: max(pair[key] for pair in seeds) for key in seeds[0]} if seeds else None
    last = references[curves[0].seed]
    share = last.top1[-1]
    error = math.sqrt(share * (1 - share) / last.evaluation_images)
    pairs = []
    for curve in curves:
        if curve.execution == first or curve.seed not in references:
            continue
        found = distance(curve, references[curve.seed])
        alike = None
        if spread is not None:
            alike = found["loss"] <= spread["loss"] and found["top1"] <= max(spread["top1"], 2 * error)
        pairs.append({"execution": curve.execution, "seed": curve.seed, **found, "trains_alike": alike})
    return {"reference": first, "seeds": spread, "top1_standard_error": error, "pairs": pairs}


def without_paths(options: Sequence[str]) -> str:
    """The options as they are recorded: what was run, not where the data lay."""
    words = list(options)
    for at, word in enumerate(words):
        if word.startswith("--data_url"):
            words[at : at + 1 if "=" in word else at + 2] = ["--data_url", "FOLDER"]
            break
    return " ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--executions", nargs="+", default=["eager", "fused"], help="the first is what others equal")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--name", default=None, help="name of the result files; left out: set and date")
    own, options = parser.parse_known_args(argv)
    curves: list[Curve] = []
    result: dict[str, Any] = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "command": f"convmixer train {' '.join(SETS[own.set])} {without_paths(options)}".rstrip(),
        "set": own.set,
    }
    name = own.name or f"curves_{own.set}_{datetime.now():%Y-%m-%d}"
    for seed in own.seeds:
        for execution in own.executions:
            curves.append(train(own.set, execution, seed, options))
            print(f"{execution}, seed {seed}: top-1 {curves[-1].top1[-1]:.4f} in {curves[-1].seconds:g} s", flush=True)
            # After every run, so that what is cut short leaves what it has.
            epochs = {"epoch_losses": [curve.epoch_losses() for curve in curves]}
            result["runs"] = [asdict(curve) for curve in curves]
            write_report(result | epochs | {"comparison": compare(curves)}, own.output, name)
    print(json.dumps({"results": f"{name}.json", "comparison": compare(curves)["pairs"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
